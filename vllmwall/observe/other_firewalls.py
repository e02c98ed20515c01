"""What else on this node looks at packets that come in: base chains of other tables, by name.

Their rules are not read, let alone judged. nft and iptables run as children with little time: an
old nft can crash on a newer program's table, and that must not be ours to crash.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vllmwall.linux.netns import run_in

_PATIENCE_SECONDS = 5.0
_ORDER = ("ingress", "prerouting", "input")
_OURS = re.compile(r"vllmwall(?:_.*)?")
_TABLES = (
    ("ip_tables_names", "iptables-legacy-save"),
    ("ip6_tables_names", "ip6tables-legacy-save"),
)
_CHAIN = re.compile(r":(?P<chain>PREROUTING|INPUT) (?P<policy>\S+)")


@dataclass(frozen=True)
class Hook:
    """A base chain that packets to this node pass. ``priority`` None: iptables (legacy)."""

    table: str
    chain: str
    hook: str
    priority: int | None
    policy: str


@dataclass(frozen=True)
class Hooks:
    """Those that were found, in the packet's order, and why others may be missing."""

    found: tuple[Hook, ...]
    problems: tuple[str, ...] = ()


def other_hooks(path: str) -> Hooks:
    """Those of the namespace behind ``path``. Raises OSError when it cannot be entered."""
    return run_in(path, _read)


def _read() -> Hooks:
    found: list[Hook] = []
    problems: list[str] = []
    for read in (_nftables, _legacy):
        try:
            found += read()
        except (OSError, ValueError, KeyError, subprocess.SubprocessError) as error:
            problems.append(f"what other tables add is not known: {_words(error)}")
    found.sort(key=lambda one: (_ORDER.index(one.hook), one.priority or 0))
    return Hooks(tuple(found), tuple(problems))


def _words(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} ended with {error.returncode} {str(error.stderr).strip()}".strip()
    return str(error)


def _nftables() -> list[Hook]:
    answer = json.loads(_run("nft", "-j", "list", "chains"))
    chains = (one["chain"] for one in answer["nftables"] if "chain" in one)
    return [
        Hook(
            f"{one['family']} {one['table']}",
            one["name"],
            one["hook"],
            int(one["prio"]),
            one.get("policy", "accept"),
        )
        for one in chains
        if one.get("hook") in _ORDER and not _OURS.fullmatch(one["table"])
    ]


def _legacy() -> Iterator[Hook]:
    """Where the kernel has such tables: asking for others would load them."""
    for names, tool in _TABLES:
        file = Path("/proc/thread-self/net") / names
        if not file.exists() or not file.read_text().split():
            continue
        table = ""
        for line in _run(tool).splitlines():
            table = line[1:] if line.startswith("*") else table
            if chain := _CHAIN.match(line):
                hook = chain["chain"].lower()
                yield Hook(
                    f"{tool.removesuffix('-save')} {table}",
                    chain["chain"],
                    hook,
                    None,
                    chain["policy"].lower(),
                )


def _run(*argv: str) -> str:
    return subprocess.run(
        argv, capture_output=True, text=True, check=True, timeout=_PATIENCE_SECONDS
    ).stdout
