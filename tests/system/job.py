"""A job that the configuration teaches: an API at 8000 that echoes, something internal at 29600.

Run by the box's own Python.
"""

import select
import socket

listening = [socket.create_server(("0.0.0.0", port)) for port in (8000, 29600)]
connected: list[socket.socket] = []
while True:
    for ready in select.select([*listening, *connected], [], [])[0]:
        if ready in listening:
            connected.append(ready.accept()[0])
            continue
        data = b""
        try:
            data = ready.recv(1024)
            ready.sendall(data)
        except OSError:
            pass
        if not data:
            connected.remove(ready)
            ready.close()
