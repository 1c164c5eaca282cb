"""Engines run jobs. `diffusion` runs a model; `simulated` only lets time pass, and its import needs no torch."""
