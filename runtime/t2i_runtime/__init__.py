"""Who is who, and how processes reach each other: certificates and tokens from mounted Secrets, reloaded while serving,
the names in them, and what every server and channel of the system has in common.
"""
