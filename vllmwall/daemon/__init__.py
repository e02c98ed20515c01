"""The daemon's loop: time, signals and sockets. It decides nothing itself."""
