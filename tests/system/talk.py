"""Says what comes of a word sent to ADDRESS PORT: ``open``, ``silent``, ``refused``, ``timeout``.

Run by any Python, in a box or in a container of it.
"""

import socket
import sys

try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1) as connection:
        try:
            connection.sendall(b"hello")
            print("open" if connection.recv(64) == b"hello" else "silent")
        except OSError:
            print("silent")
except ConnectionRefusedError:
    print("refused")
except OSError:
    print("timeout")
