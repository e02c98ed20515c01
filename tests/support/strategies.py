"""Any wall that decide could make, for property tests here and against the kernel."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from vllmwall.cidr import merged
from vllmwall.model import KernelLog, Limits, Mode, Proto, Wall, WallEntry

# A network takes 0.2 s to make, so all examples of a test share one and clean up after themselves.
on_one_network = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
# Names that could be mistaken for each other, or for what is ours.
GROUPS = ("monitoring", "a", "a4", "any", "refused", "walled_any", "x-y_z", "node2", "only_peers")
AUDIENCES = [("public",), ("peers",), ("node",), ("node", "peers"), ("a", "a4"), ("a_a4",)]
AUDIENCES += [(name,) for name in GROUPS] + [tuple(sorted((*GROUPS, "node", "peers")))]

ipv4 = st.builds(IPv4Address, st.integers(1, 2**32 - 1))
ipv6 = st.builds(IPv6Address, st.integers(1, 2**128 - 1))
cidrs = st.one_of(
    st.builds(lambda a, n: IPv4Network((a, n), strict=False), ipv4, st.integers(0, 32)),
    st.builds(lambda a, n: IPv6Network((a, n), strict=False), ipv6, st.integers(0, 128)),
)
notes = st.text("abzAZ09 ._:/-", max_size=64).map(str.strip)
entries = st.builds(
    lambda at, proto, port, audience, note: WallEntry(
        at if isinstance(at, int) else at.version,
        proto,
        port,
        audience,
        None if isinstance(at, int) else at,
        note,
    ),
    st.one_of(st.sampled_from([4, 6]), ipv4, ipv6),
    st.sampled_from([Proto.TCP, Proto.UDP]),
    st.sampled_from([1, 22, 8000, 29500, 65535]) | st.integers(1, 65535),
    st.sampled_from(AUDIENCES),
    notes,
)


numbers = st.integers(1, 999_999)
limits = st.one_of(
    st.builds(Limits, numbers, numbers, numbers | st.none()),
    st.builds(Limits, st.none(), connections=numbers),
)
logs = st.builds(
    KernelLog, st.integers(0, 65535), st.text("az09 ._:/-", min_size=1, max_size=64), numbers
)
ports = st.integers(1, 65535)
doors = st.tuples(st.sampled_from([Proto.TCP, Proto.UDP]), ports)


def _place(each: WallEntry) -> tuple[object, ...]:
    return each.family, each.proto, each.port, each.address


@st.composite
def walls(draw: st.DrawFn) -> Wall:
    """Any wall that decide could make."""
    found = draw(st.lists(entries, max_size=12, unique_by=_place))
    names = {"peers", *(name for each in found for name in each.audience)} - {"public", "node"}
    nets = {name: merged(draw(st.lists(cidrs, max_size=5))) for name in sorted(names)}
    limited = draw(st.none() | limits)
    return Wall(
        0,
        frozenset(_limited(one, wanted=draw(st.booleans())) if limited else one for one in found),
        nets,
        draw(st.sampled_from(Mode)),
        failsafe=draw(st.frozensets(ports, max_size=3)),
        banned=merged(draw(st.lists(cidrs, max_size=5))),
        failsafe_udp=draw(st.frozensets(ports, max_size=3)),
        lockdown=draw(st.booleans()),
        opened=draw(st.frozensets(doors, max_size=3)),
        limits=limited,
        log=draw(st.none() | logs),
        redirected=draw(st.booleans()),
        vrfs=draw(st.sampled_from([frozenset(), frozenset({"blue", "mgmt-0"})])),
    )


def _limited(one: WallEntry, *, wanted: bool) -> WallEntry:
    can_be = (one.audience, one.proto) == (("public",), Proto.TCP)
    return replace(one, limited=wanted and can_be)


def by_elements(wall: Wall, standing: Wall) -> Wall:
    """The wall with the rules of another: what differs then is in elements."""
    rules = ("mode", "guard_audience", "failsafe", "failsafe_udp", "lockdown", "opened", "log")
    rules += ("redirected", "vrfs")
    kept = {name: getattr(standing, name) for name in rules}
    found = replace(wall, limits=standing.limits, **kept)
    if found.limits is not None:
        return found
    return replace(found, entries=frozenset(_limited(one, wanted=False) for one in found.entries))
