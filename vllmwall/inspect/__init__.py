"""Tools that look at the node for themselves and do not trust the daemon's answers."""
