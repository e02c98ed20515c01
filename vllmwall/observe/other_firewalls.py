"""Other firewalls in a network namespace: their base chains, and the ports that NAT forwards.

Rules are in `vllmwall.observe.other_rules`. Chains of nf_tables are listed by netlink, because an
old nft can crash on a newer program's table. Legacy iptables is read by its own commands, and only
where the kernel has such tables: asking for others would create them.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from vllmwall.enforce.nftables.names import TABLE

_PATIENCE_SECONDS = 5.0
_NET = Path("/proc/thread-self/net")
_ORDER = ("ingress", "prerouting", "input")
_FAMILIES = {1: "inet", 2: "ip", 5: "netdev", 7: "bridge", 10: "ip6"}  # NFPROTO_*
_HOOKS = {0: "prerouting", 1: "input", 5: "ingress"}  # NF_INET_*
_NETDEV_HOOKS = {0: "ingress"}
_POLICIES = {0: "drop", 1: "accept"}  # NF_DROP, NF_ACCEPT
_OURS = re.compile(rf"{TABLE}(?:_.*)?")
LEGACY = (
    ("ip_tables_names", "iptables-legacy-save"),
    ("ip6_tables_names", "ip6tables-legacy-save"),
)
"""The kernel's list of legacy tables, and the command that prints them."""
_LEGACY_CHAIN = re.compile(r":(?P<chain>PREROUTING|INPUT) (?P<policy>\S+)")
_DNAT = re.compile(
    r"-A (?P<chain>[\w.:-]+) .*-p (?P<proto>tcp|udp) .*--dport (?P<port>\d+) .*"
    r"-j DNAT --to-destination (?P<to>(?:[\d.]+|\[[\da-f:]+\]):\d+)"
)
# Seen with docker 20.10, netavark 1.4 and CNI's portmap.
_SERVICE = re.compile(
    r"(?P<proto>TCP|UDP)\s+(?P<address>\[[\da-f:]+\]|[\dA-F]{8}):(?P<port>[\dA-F]{4}) "
)
_SERVER = re.compile(r"  -> (?P<address>\[[\da-f:]+\]|[\dA-F]{8}):(?P<port>[\dA-F]{4})\s")
_ENGINES = (
    *(("DOCKER", "Docker"), ("docker", "Docker"), ("NETAVARK", "Podman"), ("nv_", "Podman")),
    *(("netavark", "Podman"), ("CNI-", "Podman"), ("KUBE-S", "kube-proxy")),
    *(("KUBE-EXT", "kube-proxy"), ("KUBE-NODEPORTS", "kube-proxy"), ("kube-proxy", "kube-proxy")),
)


@dataclass(frozen=True)
class BaseChain:
    """A chain that packets to this namespace pass. ``priority`` None: iptables (legacy)."""

    table: str
    name: str
    hook: str
    priority: int | None
    policy: str


@dataclass(frozen=True)
class BaseChains:
    """Those that were found, in the packet's order, and why others may be missing."""

    found: tuple[BaseChain, ...]
    problems: tuple[str, ...] = ()


@dataclass(frozen=True, order=True)
class PublishedPort:
    """A port that NAT forwards to a container: ``to`` is where (``172.17.0.2:8000``), ``by`` whose
    rule it is. Such packets never come to the input hook of this namespace."""

    proto: str
    port: int
    to: str
    by: str


def other_chains() -> BaseChains:
    """Other programs' base chains for incoming packets, in this thread's network namespace."""
    found: list[BaseChain] = []
    problems: list[str] = []
    for read in (_nftables, _legacy):
        try:
            found += read()
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            problems.append(f"the chains of other firewalls are unknown: {_reason(error)}")
    found.sort(key=lambda one: (_ORDER.index(one.hook), one.priority or 0))
    return BaseChains(tuple(found), tuple(problems))


def published_ports() -> tuple[PublishedPort, ...]:
    """Those of this thread's network namespace. What cannot be listed is left out."""
    tools = ["iptables-save", "ip6tables-save"]
    tools += [tool for names, tool in LEGACY if "nat" in legacy_tables(names)]
    found = {one for tool in tools for one in _published(tool)}
    return tuple(sorted({*found, *_ipvs()}))


def _nftables() -> Iterator[BaseChain]:
    from pyroute2.netlink.exceptions import NetlinkError  # 16 MB, which the daemon does not need
    from pyroute2.nftables.main import NFTables

    with NFTables(nfgen_family=0) as tables:
        try:
            chains = list(tables.get_chains())
        except NetlinkError as error:
            raise OSError(error.code, os.strerror(error.code)) from error
        for chain in chains:
            family = _FAMILIES.get(chain["nfgen_family"], "")
            table = f"{family} {chain.get_attr('NFTA_CHAIN_TABLE')}"
            hook = chain.get_attr("NFTA_CHAIN_HOOK")
            if not family or hook is None or _OURS.fullmatch(table):
                continue
            names = _NETDEV_HOOKS if family == "netdev" else _HOOKS
            if name := names.get(hook.get_attr("NFTA_HOOK_HOOKNUM")):
                yield BaseChain(
                    table,
                    chain.get_attr("NFTA_CHAIN_NAME"),
                    name,
                    hook.get_attr("NFTA_HOOK_PRIORITY"),
                    _POLICIES.get(chain.get_attr("NFTA_CHAIN_POLICY"), "accept"),
                )


def _legacy() -> Iterator[BaseChain]:
    for names, tool in LEGACY:
        table = ""
        for line in _run(tool).splitlines() if legacy_tables(names) else ():
            table = line[1:] if line.startswith("*") else table
            if chain := _LEGACY_CHAIN.match(line):
                name, policy = chain["chain"], chain["policy"].lower()
                whole = f"{tool.removesuffix('-save')} {table}"
                yield BaseChain(whole, name, name.lower(), None, policy)


def legacy_tables(names: str) -> list[str]:
    """The tables of legacy iptables that the kernel has; ``names`` is of `LEGACY`."""
    try:
        return (_NET / names).read_text().split()
    except OSError:
        return []


def _published(tool: str) -> Iterator[PublishedPort]:
    with suppress(OSError, subprocess.SubprocessError):
        for line in _run(tool, "-t", "nat").splitlines():
            if rule := _DNAT.match(line):
                by = engine(rule["chain"])
                yield PublishedPort(rule["proto"], int(rule["port"]), rule["to"], by)


def _ipvs() -> Iterator[PublishedPort]:
    """Virtual services of the kernel's load balancer, as /proc/net/ip_vs lists them."""
    try:
        lines = (_NET / "ip_vs").read_text(errors="replace").splitlines()
    except OSError:
        return
    service: re.Match[str] | None = None
    for line in lines:
        if not line.startswith(" "):
            service = _SERVICE.match(line)
        elif service and (to := _SERVER.match(line)):
            with suppress(ValueError):  # no address
                where = f"{_address(to['address'])}:{int(to['port'], 16)}"
                port = int(service["port"], 16)
                yield PublishedPort(service["proto"].lower(), port, where, "IPVS")


def _address(text: str) -> str:
    """``0AF40007`` is 10.244.0.7; IPv6 is in brackets."""
    if text.startswith("["):
        return f"[{ip_address(text.strip('[]'))}]"
    return str(ip_address(int(text, 16)))


def engine(place: str) -> str:
    """The program whose rules these are, by the names of the chain and of its table."""
    words = place.split()
    found = (name for prefix, name in _ENGINES if any(one.startswith(prefix) for one in words))
    return next(found, f"the chain {place}")


def _run(*argv: str) -> str:
    return subprocess.run(
        argv, capture_output=True, text=True, check=True, timeout=_PATIENCE_SECONDS
    ).stdout


def _reason(error: Exception) -> str:
    if isinstance(error, subprocess.CalledProcessError):
        return f"{error.cmd[0]} ended with {error.returncode} {str(error.stderr).strip()}".strip()
    return (isinstance(error, OSError) and error.strerror) or str(error)
