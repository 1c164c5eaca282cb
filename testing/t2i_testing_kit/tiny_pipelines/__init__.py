"""Tiny random models of every family that people serve, as folders, and the stock pipeline as the reference."""
