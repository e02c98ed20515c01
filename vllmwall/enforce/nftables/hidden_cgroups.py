"""A thread in which /sys/fs/cgroup is empty, so that nft lists cgroups by their numbers.

For every cgroup that it prints, libnftables searches all of /sys/fs/cgroup for the folder with
that inode (cgroupv2_get_path, datatype.c): 60 guards on a node of 600 cgroups took it a second.
And what it finds may be another hierarchy's folder. The number is what the kernel compares.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import TypeVar

_CLONE_NEWNS, _CLONE_FS = 0x00020000, 0x00000200  # linux/sched.h
_MS_RDONLY, _MS_REC, _MS_PRIVATE = 1, 16384, 1 << 18  # linux/mount.h
_HIDDEN = b"/sys/fs/cgroup"

Result = TypeVar("Result")


def secluded(function: Callable[[], Result]) -> Result:
    """Call ``function`` in that thread. Raises what it raises."""
    return _thread().submit(function).result()


@lru_cache(maxsize=1)
def _thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="nft", initializer=seclude)


def seclude() -> None:
    """Hide /sys/fs/cgroup from the calling thread, for good; a mount namespace of its own.

    Where that may not be done (no CAP_SYS_ADMIN), nft sees it and `listing` reads no guard.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if not os.path.isdir(_HIDDEN) or libc.unshare(_CLONE_FS | _CLONE_NEWNS) != 0:  # noqa: PTH112
        return
    if libc.mount(b"none", b"/", None, _MS_REC | _MS_PRIVATE, None) == 0:
        libc.mount(b"none", _HIDDEN, b"tmpfs", _MS_RDONLY, b"size=4k")
