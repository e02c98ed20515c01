"""The ports that Ray wrote into its session directories, read now and then."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable

from vllmwall.model import Process, RaySession
from vllmwall.observe.files import Wanted, ray_directories
from vllmwall.observe.user_files import UserFiles

_TICKS = os.sysconf("SC_CLK_TCK")
_LEAST, _MOST = 1.0, 600.0  # seconds between two readings


def ray_sessions(processes: Iterable[Process], files: UserFiles) -> tuple[RaySession, ...]:
    """The sessions of Ray's node processes, as last read.

    A new node writes its files within seconds, an old one hardly ever: a directory is read again
    after a quarter of its age.
    """
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    found: dict[tuple[str, int], RaySession] = {}
    for process in processes:
        for directory in ray_directories(process):
            if (directory, process.uid) not in found:
                every = min(max(_LEAST, (now - process.start_time / _TICKS) / 4), _MOST)
                wanted = Wanted(process.pid, process.start_time, "ray", directory)
                content, _ = files.content(wanted, process.uid, every)
                ports = {kind: _numbers(value) for kind, value in content.items()}
                found[directory, process.uid] = RaySession(directory, ports, process.uid)
    return tuple(found[key] for key in sorted(found))


def _numbers(value: object) -> tuple[int, ...]:
    return tuple(one for one in value if isinstance(one, int)) if isinstance(value, list) else ()
