"""What the tests of guards share: cgroups to guard, who gets in, and what stands in the kernel."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path

from tests.support.cgroups import cgroup, root
from tests.support.guarded import Guarded, eventually
from vllmwall.linux.cgroups import SLICE

PORT = 29500
_numbers = itertools.count()
# nft prints numbers where it finds no folder of that inode.
_LISTED = "mount -t tmpfs none /sys/fs/cgroup && nft list tables | grep -q vllmwall || exit 0;"
_LISTED += "exec nft list table inet vllmwall"


@contextlib.contextmanager
def unit(depth: int = 2, kind: str = "service") -> Iterator[Path]:
    """The cgroup of a unit, so deep below the root; killed and removed in the end."""
    number = f"{os.getpid()}-{next(_numbers)}"
    above = "".join(f"/vw{level}-{number}.slice" for level in range(1, depth))
    with cgroup(f"{above}/vw-{number}.{kind}") as made:
        yield made


def path_of(folder: Path) -> str:
    """As /proc/PID/cgroup has it."""
    return f"/{folder.relative_to(root())}"


def number_of(folder: Path) -> int:
    """As the kernel numbers it."""
    return folder.stat().st_ino


def numbers(node: Guarded) -> set[int]:
    """The cgroups that the guard sets of the node hold, /vllmwall.slice left out.

    Where this machine has that one, every daemon guards it.
    """
    shared = root() / SLICE.lstrip("/")
    return all_numbers(node) - ({number_of(shared)} if shared.exists() else set())


def all_numbers(node: Guarded) -> set[int]:
    """The cgroups that the guard sets of the node hold, as nft lists them."""
    listed = node.lab.node.run(["sh", "-c", _LISTED]).stdout
    sets = [one for one in listed.split("\tset ") if one.startswith("guarded_")]
    return {int(one) for each in sets for one in re.findall(r"\b\d{2,}\b", each)}


def wait_for_guard(node: Guarded, folder: Path) -> None:
    """Until the kernel has it."""
    eventually(lambda: number_of(folder) in numbers(node), f"a guard on {folder}", node.log)


def wait_for_no_guard(node: Guarded, folder: Path) -> None:
    """Until the kernel has it no more."""
    eventually(lambda: number_of(folder) not in numbers(node), f"none on {folder}", node.log)


def stranger(node: Guarded, port: int = PORT) -> str:
    """What a stranger gets, who knows only the node's first address."""
    return node.lab.stranger.connect(node.lab.node.ipv4, port)


def peer(node: Guarded, port: int = PORT) -> str:
    """What a peer gets there."""
    return node.lab.peer.connect(node.lab.node.ipv4, port)


def refuses(node: Guarded, port: int = PORT) -> bool:
    """Whether the stranger is refused and the peer let in."""
    return (stranger(node, port), peer(node, port)) == ("timeout", "open")


@contextlib.contextmanager
def asleep(node: Guarded) -> Iterator[None]:
    """Stop the daemon where it stands: what is closed meanwhile, the kernel closed."""
    assert node.process is not None
    os.kill(node.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(node.process.pid, signal.SIGCONT)


def reasons(node: Guarded) -> str:
    """Why workloads have no guard, as `status` says it."""
    return "; ".join(str(one["guard"]["reason"]) for one in workloads(node))


def workloads(node: Guarded) -> list[dict[str, dict[str, object]]]:
    """What `status` knows of workloads."""
    return node.ask("status")["workloads"]  # type: ignore[return-value]
