"""The metrics endpoint: definitions, exporter and HTTP server."""
