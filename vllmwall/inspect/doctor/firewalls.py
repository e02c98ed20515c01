"""Other firewalls on this node, and what they will do to the API ports.

Ours only takes reach away: what another one drops stays dropped, and what it would let in has to
pass ours too. Their tables are listed by a child process, because an old nft can crash on what a
newer one wrote; base chains only, no rules. Each firewall is asked by its own command.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from vllmwall.enforce.nftables.ruleset import TABLE
from vllmwall.inspect.doctor.diagnosis import Diagnosis, ok, warn
from vllmwall.observe.published_ports import published_ports

_PATIENCE = 5  # seconds
_OURS = frozenset({TABLE, f"{TABLE}_standin"})
_PROVE = "`vllmwall prove` sends real packets to see who is let in"


@dataclass(frozen=True)
class BaseChain:
    """A chain of another program's through which packets to this host go."""

    table: str
    name: str
    hook: str
    priority: int
    policy: str


def beside_us(api_ports: Sequence[int]) -> Iterator[Diagnosis]:
    """What else filters here."""
    chains = base_chains()
    if chains is None:
        seen = "the other nftables tables could not be listed"
        yield warn("other firewalls", seen, "ask as root, with the nft command installed")
        chains = ()
    yield from _ufw(api_ports)
    yield from _firewalld(api_ports)
    yield from _published()
    yield from _dropping(chains)
    if chains:
        names = ", ".join(sorted({one.table for one in chains if one.hook == "input"})) or "none"
        yield ok("tables at the input hook", f"{names}; each of them is passed beside ours")


def base_chains() -> tuple[BaseChain, ...] | None:
    """Other programs' base chains in this network namespace; None: they cannot be listed."""
    printed = _printed(["nft", "-j", "list", "chains"])
    try:
        found = json.loads(printed)["nftables"] if printed else None
    except (ValueError, KeyError):
        return None
    if found is None:
        return None
    chains = (one["chain"] for one in found if "chain" in one)
    return tuple(
        BaseChain(table, one["name"], one["hook"], int(one.get("prio", 0)), one.get("policy", ""))
        for one in chains
        if "hook" in one and (table := f"{one['family']} {one['table']}") not in _OURS
    )


def _ufw(api_ports: Iterable[int]) -> Iterator[Diagnosis]:
    printed = _printed(["ufw", "status", "verbose"])
    if printed is None or "Status: active" not in printed:
        return
    default = re.search(r"Default: (\w+) \(incoming\)", printed)
    policy = default[1] if default else "unknown"
    yield ok("ufw", f"active, incoming: {policy}; it does not see what Docker publishes, we do")
    for port in api_ports if policy != "allow" else ():
        if not re.search(rf"^{port}(/tcp)?\s+(\(v6\)\s+)?ALLOW", printed, re.MULTILINE):
            yield warn(f"API port {port}", "ufw drops it", f"ufw allow {port}/tcp")


def _firewalld(api_ports: Iterable[int]) -> Iterator[Diagnosis]:
    zone = _printed(["firewall-cmd", "--get-default-zone"])
    if not zone:
        return
    yield ok(
        "firewalld", f"runs, default zone {zone.strip()}; a reload of it leaves our table alone"
    )
    for port in api_ports:
        if _printed(["firewall-cmd", f"--query-port={port}/tcp"]) is None:
            remedy = f"firewall-cmd --permanent --add-port={port}/tcp && firewall-cmd --reload"
            yield warn(f"API port {port}", "firewalld does not name it, so it refuses it", remedy)


def _published() -> Iterator[Diagnosis]:
    for (proto, port), those in groupby(published_ports(), lambda one: (one.proto, one.port)):
        ways = [(one.by, one.to) for one in those]
        whose = " and ".join(dict.fromkeys(by for by, _ in ways))
        where = ", ".join(to for _, to in ways)
        yield ok(
            f"published port {port}{'' if proto == 'tcp' else f'/{proto}'}",
            f"{whose} hands it on to {where}, past the input hook of this host; where a "
            "workload listens there, the wall inside its network namespace judges it",
        )


def _dropping(chains: Iterable[BaseChain]) -> Iterator[Diagnosis]:
    for chain in chains:
        if chain.hook in ("input", "prerouting") and chain.policy == "drop":
            seen = f"{chain.table} {chain.name} drops what none of its own rules lets in"
            yield warn("another firewall's policy", seen, f"let the API port in there; {_PROVE}")


def _printed(command: Sequence[str]) -> str | None:
    """What a command prints; None: it is not there, fails, crashes or hangs."""
    if shutil.which(command[0]) is None:
        return None
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None
