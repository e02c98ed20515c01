"""A whole new table where the kernel takes more than one transaction for it.

An owned table cannot be replaced by one script (`owned` says why): it has to be made by a message
of ours and filled by nft. Meanwhile a stand-in with the whole wall closes the ports:

1. the stand-in comes, just behind our table in the hook;
2. our table is deleted and made anew, empty, with its flags, in one transaction;
3. it is filled in one transaction;
4. the stand-in goes.

Before 2 and before 4 a grace period passes: a packet that is on its way goes by the list of
hooks that it found when it came, so one that knows neither the stand-in nor the new chains has
to be through first. Whatever fails or dies in between leaves the stand-in, and ports closed.
"""

from __future__ import annotations

import ctypes
import platform
import re
import time
from collections.abc import Iterator

from vllmwall.enforce.nftables.ownership import STAND_IN
from vllmwall.enforce.nftables.ruleset import TABLE

_BLOCK = re.compile(r"^\t(set|map|chain) (\S+) \{\n(.*?)^\t\}\n", re.MULTILINE | re.DOTALL)
_TABLE = re.compile(rf"^table {TABLE} \{{\n.*?^\}}\n", re.MULTILINE | re.DOTALL)
_BASE = "\t\ttype "
_BEHIND = ("hook input priority filter - 10;", "hook input priority filter - 9;")
_MEMBARRIER = {"x86_64": 324, "aarch64": 283, "riscv64": 283, "ppc64le": 365, "s390x": 356}
_GLOBAL = 1  # MEMBARRIER_CMD_GLOBAL, linux/membarrier.h
_LONGEST_WAY = 0.05  # seconds a packet may take through one hook, where we cannot ask


def as_commands(script: str) -> str:
    """The script with every block of our table as commands that name its parts only.

    What a block declares may point at anything in it, so chains come first and rules last.
    """
    return _TABLE.sub(lambda found: "".join(_commands(found[0])), script)


def standing_in(table: str) -> str:
    """The script that puts the same wall behind the one that stands, under another name."""
    stand_in = f"inet {STAND_IN}"
    block = table.replace(*_BEHIND).replace(f"table {TABLE} ", f"table {stand_in} ", 1)
    return f"add table {stand_in}\ndelete table {stand_in}\n{block}"


def comment_of(table: str) -> str:
    """The comment of a table of ours: it is set when the table is made, and never again."""
    found = re.search(r'^\tcomment "([^"]*)"$', table, re.MULTILINE)
    return found[1] if found else ""


def grace() -> None:
    """Wait until every packet that is now on its way is through.

    membarrier(2), MEMBARRIER_CMD_GLOBAL, waits as synchronize_rcu does (kernel/sched/
    membarrier.c): 8 to 16 ms on Linux 6.18. Kernels with nohz_full cores refuse it.
    """
    number = _MEMBARRIER.get(platform.machine())
    if number is None or ctypes.CDLL(None).syscall(number, _GLOBAL, 0, 0) != 0:
        time.sleep(_LONGEST_WAY)


def _commands(table: str) -> Iterator[str]:
    blocks = _BLOCK.findall(table)
    chains = [(name, *_parted(body)) for kind, name, body in blocks if kind == "chain"]
    for name, base, _ in chains:
        yield f"add chain {TABLE} {name}{base}\n"
    for kind, name, body in blocks:
        if kind != "chain":
            yield f"add {kind} {TABLE} {name} {{\n{body}\t}}\n"
    for name, _, rules in chains:
        for rule in rules:
            yield f"add rule {TABLE} {name} {rule}\n"


def _parted(body: str) -> tuple[str, list[str]]:
    """What makes a chain a base chain, and its rules."""
    lines = body.splitlines()
    base = f" {{ {lines[0].strip()} }}" if body.startswith(_BASE) else ""
    return base, [line.strip() for line in (lines[1:] if base else lines)]
