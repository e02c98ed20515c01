"""Any wall that decide could make, for property tests here and against the kernel."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from hypothesis import strategies as st

from vllmwall.cidr import merged
from vllmwall.model import Mode, Proto, Wall, WallEntry

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


def _place(each: WallEntry) -> tuple[object, ...]:
    return each.family, each.proto, each.port, each.address


@st.composite
def walls(draw: st.DrawFn) -> Wall:
    """Any wall that decide could make."""
    found = draw(st.lists(entries, max_size=12, unique_by=_place))
    names = {"peers", *(name for each in found for name in each.audience)} - {"public", "node"}
    nets = {name: merged(draw(st.lists(cidrs, max_size=5))) for name in sorted(names)}
    return Wall(0, frozenset(found), nets, draw(st.sampled_from(Mode)))
