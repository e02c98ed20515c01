"""`make demo`: what a wall changes, shown on real processes in namespaces of its own."""
