"""Certificates: read from a mounted Secret, followed when it changes, shown to callers and checked of them."""
