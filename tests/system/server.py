"""Accepts whatever comes to a port, and closes it."""

import socket
import sys

with socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=4096) as listening:
    while True:
        listening.accept()[0].close()
