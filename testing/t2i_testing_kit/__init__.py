"""A real API server, a real Valkey, gateways and workers on loopback: what tests and benchmarks both start."""
