"""sd_notify(3)."""

from __future__ import annotations

import os
import socket


def notify(status: str) -> bool:
    """Notify the service manager; False: there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as manager:
            manager.connect(address)
            manager.sendall(status.encode())
    except OSError:
        return False
    return True
