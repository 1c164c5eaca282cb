"""A Valkey server on loopback, and where its program comes from."""
