"""Files that may be trusted, and files replaced in one step.

A trusted file belongs to root (or to us) and no other user can write to it: a peer file that
another user can write lets that user open the node's ports (DESIGN §3, invariant 8).
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 16 * 1024 * 1024  # bytes; a peer file of a million lines fits


@dataclass(frozen=True)
class TrustedText:
    """The text of a file. ``complaint`` is why it must not be trusted; None: it may be."""

    text: str
    complaint: str | None


def read_trusted(path: Path) -> TrustedText:
    """Read a UTF-8 file of at most 16 MiB.

    Raises OSError when it cannot be read, and UnicodeDecodeError. Owner and mode are those of the
    opened file, so that it cannot be exchanged in between.
    """
    # O_NONBLOCK: opening a named pipe must not block the daemon.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{path} is no regular file")
        if status.st_size > _LARGEST:
            raise OSError(f"{path} is larger than {_LARGEST} bytes")
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            text = file.read(_LARGEST).decode("utf-8-sig")
    finally:
        os.close(descriptor)
    return TrustedText(text, complaint(path, status))


def directory_complaint(path: Path) -> str | None:
    """Why files of this directory must not be trusted; None: they may be, or it does not exist.

    With the sticky bit, as in /tmp, only owners can rename, so the owners of the files count.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    if status.st_mode & stat.S_ISVTX and status.st_uid in _owners():
        return None
    return complaint(path, status)


def complaint(path: Path, status: os.stat_result) -> str | None:
    """The problem with the owner or the mode, and the command that fixes it."""
    if status.st_uid not in _owners():
        return (
            f"belongs to uid {status.st_uid}, who could change it; it must belong to root "
            f"(chown root {path})"
        )
    if status.st_mode & 0o022:
        mode = stat.S_IMODE(status.st_mode)
        return f"is writable by group or others (mode {mode:04o}); run: chmod go-w {path}"
    return None


def save_text(path: Path, text: str, mode: int) -> None:
    """Replace a file of our own, made durable; its directory is made if missing. Raises OSError."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    replace_file(path, text.encode(), mode, durable=True)


def replace_file(path: Path, data: bytes, mode: int, *, durable: bool) -> None:
    """Make ``path`` hold ``data``; readers see the old content or the new, whole.

    With ``durable`` the data is on the disk before it has the name, so a crash of the machine
    leaves one of the two as well. The directory may belong to another user: nothing that exists
    in it is opened or followed. Raises OSError.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            os.fchmod(descriptor, mode)
            file.write(data)
            file.flush()
            if durable:
                os.fsync(descriptor)
        Path(name).replace(path)
    except BaseException:
        with suppress(FileNotFoundError):
            Path(name).unlink()
        raise


def append_to_file(path: Path, data: bytes) -> None:
    """Add ``data`` to a file of our own. Raises OSError: a part of it may be there then."""
    descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if os.write(descriptor, data) != len(data):
            raise OSError(errno.ENOSPC, f"{path} holds only a part of what was written")
    finally:
        os.close(descriptor)


def _owners() -> frozenset[int]:
    return frozenset({0, os.geteuid()})
