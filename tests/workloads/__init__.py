"""Real workloads for tests and the demo: what to start, and how to see what it listens on."""
