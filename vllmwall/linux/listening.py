"""Listening sockets for the servers of the poll loop: unix and TCP, non-blocking."""

from __future__ import annotations

import os
import socket
import stat
from contextlib import suppress
from pathlib import Path

BACKLOG = 32


def listen_unix(path: Path, group: int | None) -> socket.socket:
    """A listening unix socket for root, and for ``group`` where one is given. Raises OSError.

    It is bound under another name and renamed: no client can connect before its mode is right. It
    replaces another socket, but no other file.
    """
    with suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise FileExistsError(f"{path} exists and is no socket")
    unready = path.with_name(f"{path.name}.new")
    unready.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    umask = os.umask(0o177 if group is None else 0o117)
    try:
        listening.bind(os.fspath(unready))
        if group is not None:
            os.chown(unready, -1, group, follow_symlinks=False)
        listening.listen(BACKLOG)
        unready.rename(path)
    except OSError:
        listening.close()
        raise
    finally:
        os.umask(umask)
    return listening


def listen_tcp(host: str, port: int) -> socket.socket:
    """A listening TCP socket at an address of this host. Raises OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(BACKLOG)
    except OSError:
        listening.close()
        raise
    return listening
