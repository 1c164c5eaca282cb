"""Clients of other people, each from an environment of its own, as their pins do not go together with ours."""
