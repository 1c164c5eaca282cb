"""The workers that a gateway sends to: a connection to each, the slots of requests on it, what failed there."""
