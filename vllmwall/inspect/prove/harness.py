"""The source of probes: a temporary network namespace, with a veth pair into the one under test.

Packets arrive at the input hook as if from the network. The namespace under test gets no address:
each end knows the other's hardware address, and a host route leads replies back. A peer's real
address is routed by a rule for our few source ports only, so the peer's own connections are not
affected. IANA has reserved these ports (225 to 240).

The temporary namespace ends with this process, and with it the veth pair and its routes, even after
kill -9. Only routing rules could be left: they have a table number of our own, and the next run
removes them. A lock on the namespace allows one run at a time.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import signal
import socket
from collections.abc import Collection, Iterator
from pathlib import Path

from pyroute2 import IPRoute, NetlinkError

from vllmwall.inspect.prove.plan import Source
from vllmwall.linux.netns import held, run_in, run_in_new
from vllmwall.model import Address
from vllmwall.observe.packet_paths import routes_loopback

VETH = "vwprove"
TABLE = 0x76770001
PORTS = range(225, 241)

_FAR_END = "eth0"
_FIRST = 1  # before every rule except the one for local addresses
_MAIN_TABLE = 254
_LINK_SCOPE = 253  # RT_SCOPE_LINK, linux/rtnetlink.h
_PERMANENT = 0x80  # NUD_PERMANENT, linux/neighbour.h
_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h
_BUILT_IN_RULES = (0, 32766, 32767)  # priorities of local, main and default
_OLDEST = (4, 17)  # Linux: rules for ports, silently ignored by older kernels
_NO_LINK_LOCAL = 1  # IN6_ADDR_GEN_MODE_NONE, linux/if_link.h
_STOPPING = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
_FAMILIES = {4: socket.AF_INET, 6: socket.AF_INET6}


class ProveError(Exception):
    """No probes could be sent; the message says why."""


@contextlib.contextmanager
def locked(path: str) -> Iterator[None]:
    """Lock this network namespace against other runs. Raises ProveError and OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise ProveError(
            "another `vllmwall prove` is running there. Wait until it ends."
        ) from error
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def staged(path: str, sources: Collection[Source], targets: Collection[Address]) -> Iterator[str]:
    """A namespace with these sources' addresses, whose packets to ``targets`` arrive at ``path``.

    Yields its path. Removes everything at the end, and first what a killed run left behind. Needs
    the lock. Raises ProveError and OSError.
    """
    if any(one.kind == "peer" for one in sources) and _kernel() < _OLDEST:
        raise ProveError("--peer needs Linux 4.17 or newer, for routing rules with ports")
    descriptor = -1
    try:
        with _signals_blocked():
            sweep(path)
            descriptor = run_in_new(held)
            inside = f"/proc/{os.getpid()}/fd/{descriptor}"
            _connect(path, inside, sources, targets)
        yield inside
    finally:
        with _signals_blocked():
            sweep(path)
            if descriptor >= 0:
                os.close(descriptor)


def sweep(path: str) -> None:
    """Remove every veth and rule of ours from a network namespace. Needs the lock."""
    run_in(path, _sweep)


@contextlib.contextmanager
def _signals_blocked() -> Iterator[None]:
    """Signals wait: what is half built could not be found again."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOPPING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _sweep() -> None:
    with IPRoute() as routes:
        for family in _FAMILIES.values():
            found = [each.get_attr("FRA_TABLE") for each in routes.get_rules(family=family)]
            for _ in range(found.count(TABLE)):  # the kernel removes the first match
                routes.rule("del", family=family, table=TABLE, priority=_FIRST)
        for link in routes.get_links():
            name = str(link.get_attr("IFLA_IFNAME"))
            if re.fullmatch(f"{VETH}[0-9]+", name):
                with contextlib.suppress(NetlinkError):  # the kernel removes it already
                    routes.link("del", index=link["index"])


def _connect(
    path: str, inside: str, sources: Collection[Source], targets: Collection[Address]
) -> None:
    name = f"{VETH}{os.getpid()}"
    here = run_in(path, lambda: _add_veth(name, inside))
    there = run_in(inside, lambda: _hardware_address(_FAR_END))
    run_in(inside, lambda: _configure_inside(sources, targets, here))
    run_in(path, lambda: _route_back(name, sources, there))


def _add_veth(name: str, inside: str) -> str:
    """Create the veth pair; return the hardware address of the end under test."""
    localnet = int(routes_loopback())  # before ours is there: what it asks is true of others
    with IPRoute() as routes:
        routes.link("add", ifname=name, kind="veth", peer={"ifname": _FAR_END, "net_ns_fd": inside})
    _set(f"ipv6/conf/{name}/addr_gen_mode", _NO_LINK_LOCAL)
    _set(f"ipv6/conf/{name}/accept_ra", 0)
    _set(f"ipv6/conf/{name}/disable_ipv6", 0)
    _set(f"ipv4/conf/{name}/rp_filter", 0)
    _set(f"ipv4/conf/{name}/route_localnet", localnet)
    return _hardware_address(name)


def _hardware_address(name: str) -> str:
    with IPRoute() as routes:
        return str(routes.get_links(ifname=name)[0].get_attr("IFLA_ADDRESS"))


def _configure_inside(
    sources: Collection[Source], targets: Collection[Address], gateway: str
) -> None:
    """In the temporary namespace: the sources' addresses, and routes to the targets."""
    _set(f"ipv6/conf/{_FAR_END}/disable_ipv6", 0)
    _set(f"ipv4/conf/{_FAR_END}/route_localnet", 1)  # to and from 127.0.0.0/8
    with IPRoute() as routes:
        index = routes.link_lookup(ifname=_FAR_END)[0]
        routes.link("set", index=index, state="up")
        for source in sources:
            _add_address(routes, index, source.address)
        for target in targets:
            _add_route(routes, index, target, gateway, _MAIN_TABLE)


def _route_back(name: str, sources: Collection[Source], far_end: str) -> None:
    """In the namespace under test: routes for replies to the sources."""
    with IPRoute() as routes:
        index = routes.link_lookup(ifname=name)[0]
        routes.link("set", index=index, state="up")
        for source in sources:
            is_stranger = source.kind == "stranger"
            ruled = not is_stranger or _has_rules(routes, source.address.version)
            table = TABLE if ruled else _MAIN_TABLE
            _add_route(routes, index, source.address, far_end, table)
            if ruled:
                _add_rules(routes, source, narrow=not is_stranger)


def _add_rules(routes: IPRoute, source: Source, *, narrow: bool) -> None:
    address = source.address
    rule = {
        "family": _FAMILIES[address.version],
        "dst": str(address),
        "dst_len": address.max_prefixlen,
        "table": TABLE,
        "priority": _FIRST,
    }
    if not narrow:
        routes.rule("add", **rule)
        return
    for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
        ports = f"{PORTS[0]}:{PORTS[-1]}"
        routes.rule("add", **rule, ip_proto=protocol, dport_range=ports)


def _has_rules(routes: IPRoute, version: int) -> bool:
    """Whether there are other routing rules, which could take precedence over our route."""
    return any(
        (rule.get_attr("FRA_PRIORITY") or 0) not in _BUILT_IN_RULES
        for rule in routes.get_rules(family=_FAMILIES[version])
    )


def _add_address(routes: IPRoute, index: int, address: Address) -> None:
    flags = {"flags": _NODAD} if address.version == 6 else {}
    length = address.max_prefixlen
    routes.addr("add", index=index, address=str(address), prefixlen=length, **flags)


def _add_route(routes: IPRoute, index: int, to: Address, neighbour: str, table: int) -> None:
    scope = {"scope": _LINK_SCOPE} if to.version == 4 else {}
    network = f"{to}/{to.max_prefixlen}"
    routes.route("add", dst=network, oif=index, table=table, **scope)
    family = _FAMILIES[to.version]
    routes.neigh(
        "add", dst=str(to), lladdr=neighbour, ifindex=index, state=_PERMANENT, family=family
    )


def _set(name: str, value: int) -> None:
    """A setting of our own veth, where the kernel has it."""
    with contextlib.suppress(FileNotFoundError):
        Path("/proc/sys/net", name).write_text(str(value))


def _kernel() -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", platform.release())[:2])
