"""Measures what levels cost and lose on your model, judges images, fits the profile."""
