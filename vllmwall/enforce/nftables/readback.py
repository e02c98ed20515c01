"""The wall that ``nft -s list table inet vllmwall`` shows. Pure.

The whole table is compared, not only its elements: every line in which it differs from the table
that `ruleset` builds for the wall found makes the result an `AlteredWall`. So an added rule, a
flushed chain, a changed policy, a dormant table, a set of another program or an element that we
never write is noticed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv6Address,
    ip_address,
    ip_network,
    summarize_address_range,
)

from vllmwall.cidr import merged
from vllmwall.enforce.backend import AlteredWall, EnforceError
from vllmwall.enforce.nftables import operator_rules, ruleset
from vllmwall.enforce.nftables.listing import Listing, normalized, parsed
from vllmwall.enforce.nftables.names import (
    ANSWERING,
    FAILSAFE,
    FAILSAFE_UDP,
    LIMITED,
    LOCKDOWN,
    OPENED,
    REDIRECTED,
    STRANGERS,
    UNLISTED,
    Audience,
    banned_set,
    guarded_set,
    is_limit,
    read_set_name,
    read_verdict,
    trusted_set,
    walled_set,
)
from vllmwall.enforce.nftables.objects import Table
from vllmwall.enforce.nftables.syntax import MAPS
from vllmwall.model import NODE, Address, Guard, Limits, Mode, Network, Proto, Wall, WallEntry

_KEY = r"(?:(?P<address>\S+) \. )?(?P<proto>tcp|udp) \. (?P<port>\d+)"
_MAPPING = re.compile(rf'{_KEY}(?: comment "(?P<note>[^"]*)")? : (?P<verdict>.+)')
_WALLED = re.compile(_KEY)
# The owner flags protect the table; newer versions of nft name the owner behind the brace.
_OWNED = re.compile(r"^\tflags (?:owner|persist|owner,\s*persist)\n|(?<=\{) # progname .*$", re.M)

_VRF = re.compile(r'iifname "([^"]+)" meta sdifname "\1" accept')

_Key = tuple[Address | None, Proto, int]
Adjust = Callable[[Table], Table]


def unchanged(table: Table) -> Table:
    """The table of a kernel that accepts all our rules."""
    return table


# Most passes read the same text again, and parsing 10,000 entries takes longer than all else.
@lru_cache(maxsize=4)
def read_wall(text: str, namespace: int, adjust: Adjust = unchanged) -> Wall:
    """The wall that a stateless listing shows; an `AlteredWall` where the table is not as ours.

    ``adjust`` leaves out of a table of ours the rules that this kernel refuses.
    """
    listing = parsed(normalized(_OWNED.sub("", text)))
    strange: list[str] = []
    wall = Wall(
        namespace,
        frozenset(_entries(listing, strange)),
        _networks(listing, strange),
        _mode(listing),
        frozenset(_guards(listing, strange)),
        _guard_audience(listing),
        _ports(listing, FAILSAFE, strange),
        _elements(listing, f"set {ANSWERING}") in (("tcp",), ("6",)),
        _banned(listing, strange),
        _ports(listing, FAILSAFE_UDP, strange),
        f"chain {LOCKDOWN}" in listing.blocks,
        _opened(listing, strange),
        _limits(listing),
        operator_rules.log_in(listing.lines(f"chain {STRANGERS}")),
        f"chain {REDIRECTED}" in listing.blocks,
        frozenset(_vrfs(listing.lines(f"chain {ruleset.INPUT}"))),
    )
    strange += _differences(listing, wall, adjust)
    if not strange:
        return wall
    shown = {each.name: getattr(wall, each.name) for each in fields(wall)}
    return AlteredWall(**shown, differences=tuple(strange))


def skeleton(wall: Wall) -> Wall:
    """The smallest wall with the same rules."""
    entries = {entry.audience: replace(entry, limited=False) for entry in wall.entries}
    networks: dict[str, tuple[Network, ...]] = dict.fromkeys(wall.networks, ())
    return Wall(
        wall.namespace,
        frozenset(entries.values()),
        networks,
        wall.mode,
        guard_audience=wall.guard_audience,
        lockdown=wall.lockdown,
        limits=wall.limits,
        log=wall.log,
        redirected=wall.redirected,
        vrfs=wall.vrfs,
    )


def _elements(listing: Listing, title: str) -> tuple[str, ...]:
    """The elements of a set or map; none where it does not exist."""
    return listing.blocks[title].elements if title in listing.blocks else ()


def _guards(listing: Listing, strange: list[str]) -> Iterator[Guard]:
    """By number: nft prints them so where /sys/fs/cgroup is hidden from it."""
    for level in ruleset.LEVELS:
        title = f"set {guarded_set(level)}"
        for element in _elements(listing, title):
            if element.isdigit():
                yield Guard(level, int(element))
            else:
                strange.append(f"{title}: {element}")


def _ports(listing: Listing, name: str, strange: list[str]) -> frozenset[int]:
    elements = _elements(listing, f"set {name}")
    strange += (f"set {name}: {element}" for element in elements if not element.isdigit())
    return frozenset(map(int, filter(str.isdigit, elements)))


def _banned(listing: Listing, strange: list[str]) -> tuple[Network, ...]:
    fours, sixes = (
        _networks_of(listing, f"set {banned_set(family)}", strange) for family in (4, 6)
    )
    return (*fours, *sixes)


def _opened(listing: Listing, strange: list[str]) -> frozenset[tuple[Proto, int]]:
    title = f"set {OPENED}"
    elements = _elements(listing, title)
    try:
        return frozenset(operator_rules.opened_in(elements))
    except ValueError:
        strange.append(f"{title}: {', '.join(elements)}")
        return frozenset()


def _limits(listing: Listing) -> Limits | None:
    title = f"chain {LIMITED}"
    return operator_rules.limits_in(listing.lines(title)) if title in listing.blocks else None


def _guard_audience(listing: Listing) -> Audience:
    """The audience that the chain for ports without an entry jumps to."""
    rules = listing.lines(f"chain {UNLISTED}")
    verdicts = (read_verdict(rule) for rule in rules if rule.startswith("jump "))
    return next((found for found in verdicts if found is not None), (NODE,))


def _entries(listing: Listing, strange: list[str]) -> Iterator[WallEntry]:
    for name in MAPS:
        for element in _elements(listing, f"map {name}"):
            entry = _entry(name, element)
            if entry is None:
                strange.append(f"map {name}: {element}")
            else:
                yield entry


def _entry(name: str, element: str) -> WallEntry | None:
    found = _MAPPING.fullmatch(element)
    audience = read_verdict(found["verdict"]) if found else None
    if found is None or audience is None:
        return None
    try:
        address, proto, port = _key(found)
    except ValueError:
        return None
    note, limited = found["note"] or "", is_limit(found["verdict"])
    return WallEntry(int(name[-1]), proto, port, audience, address, note, limited)


def _key(found: re.Match[str]) -> _Key:
    """The key of an element. Raises ValueError."""
    address = ip_address(found["address"]) if found["address"] else None
    return address, Proto(found["proto"]), int(found["port"])


def _vrfs(rules: tuple[str, ...]) -> Iterator[str]:
    return (found[1] for rule in rules if (found := _VRF.fullmatch(rule)))


def _networks(listing: Listing, strange: list[str]) -> dict[str, tuple[Network, ...]]:
    """By name, merged: the set of IPv4 comes before that of IPv6."""
    found: dict[str, tuple[Network, ...]] = {}
    for title in sorted(listing.blocks):
        if named := read_set_name(title.removeprefix("set ")):
            networks = _networks_of(listing, title, strange)
            found[named[0]] = (*found.get(named[0], ()), *networks)
    return found


def _networks_of(listing: Listing, title: str, strange: list[str]) -> tuple[Network, ...]:
    networks, others = _read_networks(_elements(listing, title))
    strange += (f"{title}: {element}" for element in others)
    return networks


# A thousand bans take 30 ms to read, and a new port changes none of them.
@lru_cache(maxsize=32)
def _read_networks(elements: tuple[str, ...]) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    """The networks of a set, merged, and the other elements."""
    networks: list[Network] = []
    strange: list[str] = []
    for element in elements:
        try:
            networks += _network(element)
        except ValueError:
            strange.append(element)
    return merged(networks), tuple(strange)


def _network(element: str) -> Iterator[Network]:
    """The networks of a CIDR, of an address or, as nft joins neighbours, of a range."""
    first, dash, last = element.partition("-")
    if not dash:
        return iter([ip_network(element)])
    start, end = ip_address(first), ip_address(last)
    if isinstance(start, IPv4Address) and isinstance(end, IPv4Address):
        return summarize_address_range(start, end)
    if isinstance(start, IPv6Address) and isinstance(end, IPv6Address):
        return summarize_address_range(start, end)
    raise ValueError(element)


def _mode(listing: Listing) -> Mode:
    """By the rule that strangers meet; the comment proves nothing."""
    rules = listing.lines(f"chain {STRANGERS}")
    return Mode.AUDIT if ruleset.LAST_RULE[Mode.AUDIT] in rules else Mode.ENFORCE


def _differences(listing: Listing, wall: Wall, adjust: Adjust) -> Iterator[str]:
    """Where the table is not as we would write it for ``wall``, elements apart."""
    try:
        ours = adjust(ruleset.table(skeleton(wall)))
    except EnforceError as error:
        yield str(error)
        return
    yield from _wrongly_walled(listing, wall)
    yield from _wrongly_trusted(listing, wall)
    around = (f"table {ours.name} {{", f'comment "{ours.comment}"', "}")
    yield from _compare("table", around, listing.around)
    blocks = {f"{one.kind} {one.name}": tuple(one.declaration()) for one in ours.sets}
    blocks |= {f"chain {one.name}": tuple(one.lines()) for one in ours.chains}
    for title in sorted(blocks.keys() | listing.blocks.keys()):
        if title not in listing.blocks:
            yield f"{title}: missing"
        elif title not in blocks:
            yield f"{title}: not ours"
        else:
            yield from _compare(title, blocks[title], listing.lines(title))


def _wrongly_walled(listing: Listing, wall: Wall) -> Iterator[str]:
    """Ports that are closed without an entry, or have an entry and are not closed."""
    keys: dict[str, set[_Key | str]] = {name: set() for name in MAPS}
    for entry in filter(ruleset.is_walled, wall.entries):
        keys[ruleset.map_of(entry)].add((entry.address, entry.proto, entry.port))
    for name, ours in keys.items():
        title = f"set {walled_set(name)}"
        found = {_walled_key(element) for element in _elements(listing, title)}
        yield from (f"{title}: {key} is missing" for key in ours - found)
        yield from (f"{title}: {key} is not ours" for key in found - ours)


def _wrongly_trusted(listing: Listing, wall: Wall) -> Iterator[str]:
    """Sources that are trusted and should not be, or the other way round."""
    for family in (4, 6):
        title, strange = f"set {trusted_set(family)}", list[str]()
        found = {*_networks_of(listing, title, strange)}
        ours = {one for one in ruleset.trusted(wall) if one.version == family}
        yield from strange
        yield from (f"{title}: {one} is missing" for one in sorted(map(str, ours - found)))
        yield from (f"{title}: {one} is not ours" for one in sorted(map(str, found - ours)))


def _walled_key(element: str) -> _Key | str:
    """The key, or the element as it is where it has another form than ours.

    Keys are compared, not their text: nft prints ``::1:0`` as ``::0.1.0.0``.
    """
    found = _WALLED.fullmatch(element)
    try:
        return _key(found) if found else element
    except ValueError:
        return element


def _compare(title: str, ours: tuple[str, ...], found: tuple[str, ...]) -> Iterator[str]:
    if ours != found:
        yield f"{title}: {' | '.join(found)} (ours: {' | '.join(ours)})"
