"""From settings and pool to a running engine, one module a kind, so that only the diffusion one imports torch."""
