"""What people and machines are shown: status, plans, recognitions, the log."""
