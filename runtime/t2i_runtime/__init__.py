"""What every process needs: signals, health, metrics port and drain; errors as gRPC statuses; the Kubernetes client;
certificates and tokens from mounted Secrets, reloaded while serving.
"""
