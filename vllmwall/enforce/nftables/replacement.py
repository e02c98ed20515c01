"""A stand-in table, for a replacement that takes the kernel more than one transaction.

One script cannot replace an owned table (`ownership` explains it): it has to be made by a message
of ours and filled by nft. Meanwhile a stand-in with the whole wall closes the ports:

1. the stand-in is added, just behind our table in the hook;
2. our table is deleted and made again, empty, with its flags, in one transaction;
3. it is filled in one transaction;
4. the stand-in is deleted.

Before 2 and before 4 a grace period passes: a packet on its way goes by the list of hooks that
was valid when it arrived, so one that knows neither the stand-in nor the new chains has to be
through first. A failure in between leaves the stand-in, and ports closed.
"""

from __future__ import annotations

import ctypes
import platform
import time

from vllmwall.enforce.nftables.names import STAND_IN
from vllmwall.enforce.nftables.objects import Table
from vllmwall.enforce.nftables.ruleset import behind

_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_GLOBAL = 1  # MEMBARRIER_CMD_GLOBAL, linux/membarrier.h
_LONGEST_WAY = 0.05  # seconds a packet may take through one hook, where membarrier is refused


def standing_in(table: Table) -> str:
    """The script that puts the same wall behind the table in the kernel, under another name."""
    return f"add table {STAND_IN}\ndelete table {STAND_IN}\n{behind(table, STAND_IN).listing()}"


def grace() -> None:
    """Wait until every packet that is now on its way is through.

    membarrier(2), MEMBARRIER_CMD_GLOBAL, waits as synchronize_rcu does (kernel/sched/
    membarrier.c): 8 to 16 ms on Linux 6.18. Kernels with nohz_full cores refuse it.
    """
    number = _MEMBARRIER.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, _GLOBAL, 0, 0) != 0:
        time.sleep(_LONGEST_WAY)
