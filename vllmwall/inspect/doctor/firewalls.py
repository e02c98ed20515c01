"""Other firewalls on this node, and what they do at the API ports.

Our table only drops: what another one drops stays dropped, and what another one accepts has to pass
ours too. ufw and firewalld are asked by their own commands.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from vllmwall.inspect.doctor.diagnosis import Diagnosis, ok, warn
from vllmwall.linux.netns import OWN
from vllmwall.observe.addresses import own_addresses
from vllmwall.observe.other_firewalls import BaseChain, other_chains, published_ports
from vllmwall.observe.other_rules import other_rules

_PATIENCE = 5  # seconds
_PROVE = "`vllmwall prove` sends real packets to test it."


def other_firewalls(api_ports: Sequence[int]) -> Iterator[Diagnosis]:
    """All of them. ``api_ports`` are TCP."""
    chains = other_chains()
    for problem in chains.problems:
        yield warn("other firewalls", problem, "Run it as root.")
    yield from _ufw(api_ports)
    yield from _firewalld(api_ports)
    yield from _published()
    yield from _dropping(chains.found)
    if chains.found:
        tables = sorted({one.table for one in chains.found if one.hook == "input"})
        names = ", ".join(tables) or "none"
        yield ok("tables at the input hook", f"{names}; a packet passes each of them and ours")


def _ufw(api_ports: Iterable[int]) -> Iterator[Diagnosis]:
    printed = _printed(["ufw", "status", "verbose"])
    if printed is None or "Status: active" not in printed:
        return
    default = re.search(r"Default: (\w+) \(incoming\)", printed)
    policy = default[1] if default else "unknown"
    yield ok(
        "ufw",
        f"active, incoming: {policy}; it does not filter the ports that Docker publishes",
    )
    for port in api_ports if policy != "allow" else ():
        if not re.search(rf"^{port}(/tcp)?\s+(\(v6\)\s+)?ALLOW", printed, re.MULTILINE):
            yield warn(f"API port {port}", "ufw drops it", f"ufw allow {port}/tcp")


def _firewalld(api_ports: Iterable[int]) -> Iterator[Diagnosis]:
    zone = _printed(["firewall-cmd", "--get-default-zone"])
    if not zone:
        return
    yield ok("firewalld", f"runs, default zone {zone.strip()}; its reload does not touch our table")
    for port in api_ports:
        if _printed(["firewall-cmd", f"--query-port={port}/tcp"]) is None:
            remedy = f"firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload"
            yield warn(f"API port {port}", "firewalld drops it", remedy)


def _published() -> Iterator[Diagnosis]:
    known = {
        (one.proto, one.port, one.to): one for one in other_rules(own_addresses(OWN)).published()
    }
    known |= {(one.proto, one.port, one.to): one for one in published_ports()}
    every = sorted(known.values())
    for (proto, port), those in groupby(every, lambda one: (one.proto, one.port)):
        ways = [(one.by, one.to) for one in those]
        whose = " and ".join(dict.fromkeys(by for by, _ in ways))
        where = ", ".join(to for _, to in ways)
        yield ok(
            f"published port {port}{'' if proto == 'tcp' else f'/{proto}'}",
            f"{whose} forwards it to {where}, past the input hook of this host; where a "
            "workload listens there, the wall in its network namespace filters it",
        )


def _dropping(chains: Iterable[BaseChain]) -> Iterator[Diagnosis]:
    for chain in chains:
        if chain.hook in ("input", "prerouting") and chain.policy == "drop":
            seen = f"{chain.table} {chain.name} drops what none of its own rules accepts"
            yield warn("another firewall's policy", seen, f"Accept the API port there. {_PROVE}")


def _printed(command: Sequence[str]) -> str | None:
    """The output of a command; None: it is not installed, fails, crashes or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
