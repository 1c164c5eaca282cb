"""The API server: calls with deadlines and retries, our lease, events."""
