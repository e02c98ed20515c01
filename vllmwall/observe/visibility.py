"""Access to other users' processes: without it we would find no workloads and open their ports."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from vllmwall.model import Listener

_NEEDED = {  # linux/capability.h, and what each is needed for
    19: "CAP_SYS_PTRACE",  # /proc/PID/{fd,environ,ns} (proc_pid_fd, ptrace_may_access)
    2: "CAP_DAC_READ_SEARCH",  # the folders of other users in it
}
_DAC_OVERRIDE = 1  # more than CAP_DAC_READ_SEARCH
_FIRST_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO, linux/proc_ns.h


def why_blind(
    listeners: Iterable[Listener],
    status: str = "/proc/self/status",
    pid_namespace: str = "/proc/self/ns/pid",
) -> str:
    """Why workloads can be there that we do not see, in words; empty: we see all.

    ``listeners`` are those of our own network namespace.
    """
    held = re.search(r"^CapEff:\s*([0-9a-f]+)$", Path(status).read_text(), re.MULTILINE)
    effective = int(held[1], 16) if held else 0
    if effective >> _DAC_OVERRIDE & 1:
        effective |= 1 << 2
    missing = [name for bit, name in _NEEDED.items() if not effective >> bit & 1]
    if missing:
        return f"other users' processes cannot be looked into without {' and '.join(missing)}"
    hidden = [one for one in listeners if not one.pids]
    if hidden and not in_first_pid_namespace(pid_namespace):
        return (
            f"{len(hidden)} sockets here belong to processes that cannot be seen, as "
            f"{hidden[0].where}: run where all of the node's processes are (hostPID)"
        )
    return ""


def in_first_pid_namespace(pid_namespace: str = "/proc/self/ns/pid") -> bool:
    """Whether our numbers of processes are the kernel's own."""
    return os.stat(pid_namespace).st_ino == _FIRST_PID_NAMESPACE  # noqa: PTH116
