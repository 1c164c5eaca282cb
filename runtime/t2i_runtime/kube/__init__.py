"""The API server: how it is reached, where it keeps things, and a watch that goes on for ever. Needs `kubernetes`."""
