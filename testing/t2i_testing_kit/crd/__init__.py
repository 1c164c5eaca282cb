"""Pool documents, changes of them, and a campaign that writes every change to a real API server."""
