"""The gateway in a cluster: plan and workers come from the API server. Only imported with `--kubernetes`."""
