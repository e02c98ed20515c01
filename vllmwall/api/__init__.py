"""The daemon's answers: one table of commands, one module for each command."""
