"""A mount that never answers, as that of a dead NFS server: FUSE with nobody who answers."""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

_MS_NOSUID, _MS_NODEV = 2, 4  # sys/mount.h
_MNT_FORCE, _MNT_DETACH = 1, 2
USER = 1000


_INIT = 26  # FUSE_INIT, linux/fuse.h
_REQUEST = struct.Struct("=IIQ")  # fuse_in_header: length, what, number
_ANSWER = struct.Struct("=IiQ IIII HHI I 36x")  # fuse_out_header and fuse_init_out


@contextlib.contextmanager
def hung_mount(place: Path) -> Iterator[Path]:
    """A file below ``place`` that every user may open, and nobody ever gets.

    Whoever tries is in the kernel's hands and cannot be killed. Leaving ends all their waits.
    """
    place.mkdir(mode=0o755)
    libc = ctypes.CDLL(None, use_errno=True)
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = f"fd={device},rootmode=40000,user_id={USER},group_id={USER},allow_other".encode()
    flags = _MS_NOSUID | _MS_NODEV
    if libc.mount(b"hung", os.fsencode(place), b"fuse", flags, options) != 0:
        os.close(device)
        raise OSError(ctypes.get_errno(), "no FUSE can be mounted here")
    over = threading.Event()
    server = threading.Thread(target=_read_and_never_answer, args=(device, over))
    server.start()
    try:
        yield place / "c.yaml"
    finally:
        over.set()
        server.join()
        # By force: those that wait may hold the device too, as children of this process.
        libc.umount2(os.fsencode(place), _MNT_FORCE | _MNT_DETACH)
        os.close(device)


def _read_and_never_answer(device: int, over: threading.Event) -> None:
    """Say hello, as without that nobody would ask; then only take the questions."""
    poll = select.poll()
    poll.register(device, select.POLLIN)
    while not over.is_set():
        if poll.poll(50):
            with contextlib.suppress(OSError):
                _, what, number = _REQUEST.unpack_from(os.read(device, 1 << 20))
                if what == _INIT:
                    answer = (_ANSWER.size, 0, number, 7, 31, 0, 0, 12, 9, 1 << 16, 1)
                    os.write(device, _ANSWER.pack(*answer))


def as_user(argv: list[str], user: int = USER) -> list[str]:
    """The command line that runs ``argv`` as a user who is nobody's friend."""
    return ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", *argv]
