"""Audits: some approximated images are drawn exactly too, when the pool has room, and an auditor compares both."""
