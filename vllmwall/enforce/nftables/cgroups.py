"""Cgroups as nft can be told of them.

nft wants a path and looks its inode up itself, below /sys/fs/cgroup. That folder can hold
something else (hybrid hosts have the v2 hierarchy elsewhere), a path can hold whatever a user
calls a cgroup, and by the time nft looks it can be another cgroup's. So it gets the path of a
descriptor of ours, whose number was compared.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress

from vllmwall.linux.cgroups import mount_point, open_folder
from vllmwall.model import Guard

# From /sys/fs/cgroup, which libnftables puts before every path (cgroupv2_type_parse, datatype.c).
_TO_ROOT = "../../.."


@contextmanager
def opened(guards: Iterable[Guard]) -> Iterator[Mapping[Guard, str]]:
    """What nft finds each guard's cgroup by, inside the block; those that ended are left out."""
    wanted = tuple(guards)
    mount = mount_point() if wanted else None
    if mount is None:
        yield {}
        return
    with ExitStack() as stack:
        found = {}
        for guard in wanted:
            with suppress(OSError):
                descriptor = open_folder(guard.path, mount)
                stack.callback(os.close, descriptor)
                if os.fstat(descriptor).st_ino == guard.id:
                    found[guard] = f'"{_TO_ROOT}/proc/self/fd/{descriptor}"'
        yield found
