"""Decisions of the operator: pure functions of what was observed and of `now`, each outcome with its reason."""
