"""The rules of other firewalls in a network namespace, as `nft` prints them.

That includes those of iptables-nft. Legacy iptables is translated by iptables' own command; rules
that it cannot translate stay as they are, so that the evaluator knows that it does not know them.
Reading starts children, so this is for the process that asks and not for the daemon's loop.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path

from vllmwall.cidr import host_port
from vllmwall.enforce.evaluator.foreign import Base, Fate, Ruleset, read_ruleset
from vllmwall.enforce.evaluator.foreign_rules import Arrival
from vllmwall.model import Address
from vllmwall.observe.other_firewalls import LEGACY, PublishedPort, engine, legacy_tables

_PATIENCE_SECONDS = 10.0
_NET = Path("/proc/thread-self/net")
_RULE = re.compile(r"add rule (?P<table>\w+ \S+) (?P<chain>\S+) (?P<rule>.*)")
_CHAIN = re.compile(r"add chain (?P<table>\w+ \S+) (?P<chain>\S+)(?: \{ (?P<head>.*) \})?")
_UNTRANSLATED = re.compile(r"# -t (?P<table>\S+) -A (?P<chain>\S+) (?P<rule>.*)")
_MOST_PORTS = 2000
_SOURCE_PORT = 40000  # any that clients use
_SOURCES = {4: ip_address("203.0.113.9"), 6: ip_address("2001:db8:bad::9")}  # any stranger
_UNKNOWN = "the rules of other firewalls cannot be read"


@dataclass(frozen=True)
class OtherRules:
    """The rules of a namespace. ``problem`` is why some are missing; empty: none is. ``devices`` is
    the number of network devices without lo, ``own`` are the addresses."""

    ruleset: Ruleset
    problem: str = ""
    devices: int = 1
    own: tuple[Address, ...] = ()

    def fate(self, source: Address, to: Address, proto: str, port: int) -> Fate:
        """The fate of a packet from outside to this namespace. `unknown` where not every rule
        could be read, and where it depends on the device by which the packet comes in."""
        packet = Arrival(source, to, proto, port, _SOURCE_PORT, interface="")
        found = self.ruleset.fate(packet)
        if found.verdict == "accept" and self.problem:
            return Fate("unknown", _UNKNOWN, self.problem, kind="nat")
        if found.device and self.devices > len(found.device.split(",")):
            return replace(found, verdict="unknown")
        return found

    def published(self, ports: Iterable[int] | None = None) -> Iterator[PublishedPort]:
        """The ports that NAT forwards to another address, of ``ports`` or of all."""
        known = self.ruleset.ports[:_MOST_PORTS]
        for port in known if ports is None else set(ports) & set(known):
            for proto in ("tcp", "udp"):
                for to in self.own:
                    fate = self.fate(_SOURCES[to.version], to, proto, port)
                    if fate.verdict == "forwarded" and (end := _end(fate.to, port)):
                        yield PublishedPort(proto, port, end, engine(fate.where))


def other_rules(own: tuple[Address, ...]) -> OtherRules:
    """Those in this thread's network namespace, which has the addresses ``own``. Raises nothing."""
    try:
        bases = [*read_ruleset(_run("nft", "-s", "list", "ruleset")).bases, *_legacy()]
        return OtherRules(Ruleset(tuple(bases)).ordered, "", _devices(), own)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        return OtherRules(Ruleset(()), _reason(error), _devices(), own)


def _end(to: str, port: int) -> str:
    """``ADDRESS:PORT``; empty where it is no single address, or none."""
    with suppress(ValueError):
        return host_port(ip_address(to.strip("[]")), port)
    address, _, number = to.rpartition(":")
    with suppress(ValueError):
        return host_port(ip_address(address.strip("[]")), int(number))
    return ""


def _legacy() -> Iterator[Base]:
    for names, save in LEGACY:
        if legacy_tables(names):
            restore = save.replace("legacy-save", "restore-translate")
            translated = _run(restore, "-f", "/dev/stdin", stdin=_run(save))
            yield from read_ruleset(_as_listing(translated, "ip6" if "6" in save else "ip")).bases


def _as_listing(translated: str, family: str) -> str:
    """What iptables-restore-translate prints, as `nft list ruleset` would."""
    tables: dict[str, dict[str, list[str]]] = {}
    for line in translated.splitlines():
        if made := _CHAIN.fullmatch(line):
            head = [made["head"]] if made["head"] else []
            tables.setdefault(made["table"], {}).setdefault(made["chain"], head)
        elif rule := _RULE.fullmatch(line):
            tables.setdefault(rule["table"], {}).setdefault(rule["chain"], []).append(rule["rule"])
        elif left := _UNTRANSLATED.match(line):
            chains = tables.setdefault(f"{family} {left['table']}", {})
            chains.setdefault(left["chain"], []).append(f"xt target {left['rule']}")
    text = ""
    for table, chains in tables.items():
        blocks = [
            f"\tchain {name} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"
            for name, lines in chains.items()
        ]
        text += f"table {table} {{\n{''.join(blocks)}}}\n"
    return text


def _devices() -> int:
    """The number of network devices without lo."""
    try:
        lines = (_NET / "dev").read_text().splitlines()[2:]
    except OSError:
        return 0
    return sum(line.split(":")[0].strip() != "lo" for line in lines)


def _run(*argv: str, stdin: str = "") -> str:
    return subprocess.run(
        argv, input=stdin, capture_output=True, text=True, check=True, timeout=_PATIENCE_SECONDS
    ).stdout


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} ended with {error.returncode} {str(error.stderr).strip()}".strip()
    return str(error)
