"""A daemon that cannot see others' processes reports it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from vllmwall.model import Listener, Proto
from vllmwall.observe.visibility import why_blind

SEEN = Listener(1, Proto.TCP, 22, ip_address("0.0.0.0"), pids=(1,))
HIDDEN = Listener(1, Proto.TCP, 8000, ip_address("0.0.0.0"))
FIRST, OTHER = "/proc/self/ns/pid", "/proc/self/ns/net"


def status(folder: Path, capabilities: int) -> str:
    file = folder / "status"
    file.write_text(f"Name:\tpython\nCapPrm:\t0\nCapEff:\t{capabilities:016x}\nCapBnd:\t0\n")
    return str(file)


@pytest.mark.parametrize(
    ("bits", "missing"),
    [((), "PTRACE and CAP_DAC"), ((2,), "SYS_PTRACE"), ((19,), "READ_SEARCH"), ((1, 19), "")],
)
def test_a_capability_that_lacks_is_named(
    tmp_path: Path, bits: tuple[int, ...], missing: str
) -> None:
    """Without both, other users' workloads are nowhere to be found."""
    said = why_blind([SEEN], status(tmp_path, sum(1 << bit for bit in bits)))
    assert (missing in said) if missing else ("" == said)


def test_a_socket_without_a_process_in_a_pod_is_somebody_elses(tmp_path: Path) -> None:
    """In the node's own pid namespace it is the kernel's, NFS for one."""
    file = status(tmp_path, (1 << 40) - 1)
    assert "tcp 0.0.0.0:8000" in why_blind([SEEN, HIDDEN], file, OTHER)
    assert "" == why_blind([SEEN], file, OTHER)
    assert "" == why_blind([SEEN, HIDDEN], file, FIRST)
