"""Engines: what runs jobs. `diffusion` on a model, `simulated` on the clock alone (importing it needs no torch)."""
