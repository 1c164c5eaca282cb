"""The T2IServingPool: its spec, status and plan document, the rules of both, and the names of what belongs to it."""
