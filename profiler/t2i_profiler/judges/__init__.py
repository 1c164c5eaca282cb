"""Judges: what an image is worth, by preference, by closeness to the exact image, or by a program of one's own."""
