"""A mount that never answers, as that of a dead NFS server: FUSE with nobody who answers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

_MS_NOSUID, _MS_NODEV = 2, 4  # sys/mount.h
_MNT_FORCE, _MNT_DETACH = 1, 2
USER = 1000


_LOOKUP, _GETATTR, _OPEN, _READ, _WRITE, _INIT = 1, 3, 14, 15, 16, 26  # linux/fuse.h
_REQUEST = struct.Struct("=IIQ")  # fuse_in_header: length, what, number
_ANSWER = struct.Struct("=IiQ")  # fuse_out_header
_INIT_OUT = struct.pack("=IIIIHHII36x", 7, 31, 0, 0, 12, 9, 1 << 16, 1)
_SIZE = 1 << 20


def _attributes(kind: int) -> bytes:
    """fuse_attr of the file, or of the folder."""
    return struct.pack("=QQQQQQIIIIIIIIII", 2, _SIZE, 8, *[0] * 6, kind, 1, USER, USER, 0, 4096, 0)


# What is answered to each question; to no other.
_READABLE = {
    _LOOKUP: struct.pack("=QQQQII", 2, 1, 600, 600, 0, 0) + _attributes(0o100666),
    _GETATTR: struct.pack("=QII", 600, 0, 0) + _attributes(0o100666),
    _OPEN: struct.pack("=QII", 1, 0, 0),
    _READ: bytes(4096),
}


@contextlib.contextmanager
def hung_mount(place: Path, *, is_readable: bool = False) -> Iterator[Path]:
    """A file below ``place`` that every user may open, and nobody ever gets.

    A user who tries is in the kernel's hands and cannot be killed. ``is_readable``: only what is
    written never arrives. Leaving ends all waits.
    """
    place.mkdir(mode=0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={USER},group_id={USER},allow_other".encode()
    flags = _MS_NOSUID | _MS_NODEV
    if libc.mount(b"hung", os.fsencode(place), b"fuse", flags, options) != 0:
        os.close(device)
        raise OSError(ctypes.get_errno(), "no FUSE can be mounted here")
    answers = {_INIT: _INIT_OUT, **(_READABLE if is_readable else {})}
    over = threading.Event()
    server = threading.Thread(target=_answer_only, args=(answers, device, over))
    server.start()
    try:
        yield place / "c.yaml"
    finally:
        over.set()
        server.join()
        # By force: those that wait may hold the device too, as children of this process.
        libc.umount2(os.fsencode(place), _MNT_FORCE | _MNT_DETACH)
        os.close(device)


def _answer_only(answers: Mapping[int, bytes], device: int, over: threading.Event) -> None:
    """Take all questions, and answer some."""
    poll = select.poll()
    poll.register(device, select.POLLIN)
    while not over.is_set():
        if poll.poll(50):
            with contextlib.suppress(OSError):
                _, what, number = _REQUEST.unpack_from(os.read(device, 1 << 20))
                if what in answers:
                    text = answers[what]
                    os.write(device, _ANSWER.pack(_ANSWER.size + len(text), 0, number) + text)


def as_user(argv: list[str], user: int = USER) -> list[str]:
    """The command line that runs ``argv`` as a user who is nobody's friend."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *argv]
