"""sd_notify(3)."""

from __future__ import annotations

import os
import socket


def notify(status: str) -> bool:
    """Tell who started us; False: nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if address[:1] not in ("/", "@"):
        return False
    if address[0] == "@":
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as told:
            told.connect(address)
            told.sendall(status.encode())
    except OSError:
        return False
    return True
