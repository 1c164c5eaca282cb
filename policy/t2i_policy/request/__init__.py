"""One request: which levels it may have, which it gets, whether it is accepted, and on which worker it runs."""
