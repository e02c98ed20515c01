"""The ports of this host that a container engine hands on to a container, by its NAT rules.

Docker writes them (chain DOCKER), Podman does (NETAVARK-DN-…, with CNI: CNI-DN-…), and so may
others. Such packets never come to the host's input hook. Seen with docker 20.10 and netavark 1.4.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PATIENCE_SECONDS = 5.0
_RULE = re.compile(
    r"-A (?P<chain>[\w.:-]+) .*-p (?P<proto>tcp|udp) .*--dport (?P<port>\d+) .*"
    r"-j DNAT --to-destination (?P<to>(?:[\d.]+|\[[\da-f:]+\]):\d+)"
)
_ENGINES = (("DOCKER", "Docker"), ("NETAVARK-", "Podman"), ("CNI-", "Podman"))
# The legacy ones where the kernel has such tables already: asking would make them.
_TOOLS = (
    ("iptables-save", ""),
    ("ip6tables-save", ""),
    ("iptables-legacy-save", "ip_tables_names"),
    ("ip6tables-legacy-save", "ip6_tables_names"),
)


@dataclass(frozen=True, order=True)
class Published:
    """One port, where its packets go (``172.17.0.2:8000``), and whose rule says so."""

    proto: str
    port: int
    to: str
    by: str


def published_ports() -> tuple[Published, ...]:
    """Those of the network namespace of this thread. What cannot be listed is left out."""
    return tuple(sorted({one for tool, names in _TOOLS for one in _of(tool, names)}))


def _of(tool: str, names: str) -> Iterator[Published]:
    if names and not _has_nat(Path("/proc/thread-self/net") / names):
        return
    for line in _printed(tool).splitlines():
        if found := _RULE.match(line):
            yield Published(
                found["proto"], int(found["port"]), found["to"], _engine(found["chain"])
            )


def _has_nat(names: Path) -> bool:
    try:
        return "nat" in names.read_text().split()
    except OSError:
        return False


def _engine(chain: str) -> str:
    found = (engine for prefix, engine in _ENGINES if chain.startswith(prefix))
    return next(found, f"the chain {chain}")


def _printed(tool: str) -> str:
    """Nothing where the tool is not there, fails or hangs."""
    try:
        done = subprocess.run(
            [tool, "-t", "nat"],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout if done.returncode == 0 else ""
