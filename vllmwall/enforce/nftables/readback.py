"""What ``nft -s list table inet vllmwall`` printed, as a wall. Pure.

The whole table is compared, not only its elements: the same reader reads the table that
`ruleset` would write for the wall found, and every line in which the two differ makes the
result an `AlteredWall`. So an added rule, a flushed chain, a changed policy, a dormant table, a
set of somebody else's or an element that we never write is noticed.

Text, not JSON: nft 1.0.6 prints broken JSON for a table with flags, and some builds have none.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
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
from vllmwall.enforce.nftables.names import (
    LOCKDOWN,
    STRANGERS,
    UNLISTED,
    Audience,
    is_limit,
    read_set_name,
    read_verdict,
)
from vllmwall.model import NODE, Address, Guard, Mode, Network, Proto, Wall, WallEntry

_BLOCK = re.compile(r"^\t(\w+ \S+) \{\n(.*?)^\t\}$", re.MULTILINE | re.DOTALL)
_ANSWERING = f"set {ruleset.ANSWERING}"
_ELEMENTS = "\t\telements = {"
_KEY = r"(?:(?P<address>\S+) \. )?(?P<proto>tcp|udp) \. (?P<port>\d+)"
_MAPPING = re.compile(rf'{_KEY}(?: comment "(?P<note>[^"]*)")? : (?P<verdict>.+)')
_WALLED = re.compile(_KEY)
# Whoever owns the table protects it; newer versions of nft name the owner behind the brace.
_OWNED = re.compile(r"^\tflags (?:owner|persist|owner,\s*persist)\n|(?<=\{) # progname .*$", re.M)

# Versions of nft write it in one way or the other.
_SYN = re.compile(
    r"tcp flags & \(fin \| syn \| rst \| ack\) == syn|tcp flags syn / fin,syn,rst,ack"
)

# How much of a bounded set is in use, which nft 1.1.7 tells even where it was asked for no state.
_IN_USE = re.compile(r"^(\t\tsize \d+)\t# count \d+$", re.MULTILINE)
_RESET = "meta l4proto tcp reject with tcp reset"  # some versions name the protocol

# Where no /etc/protocols is, as in a slim image, nft prints numbers. And where one is, its names:
# not those that nft's own grammar has and that we write.
_PROTOCOL = re.compile(
    r"(?<=l4proto )\d+|(?<=l4proto != )\d+|(?<=[{,] )(?:\d+|icmpv6)(?=(?:, \w+)* \} accept)"
    r"|(?<= )(?:6|17)(?= \. \d)"
)
_NAMES = {
    "1": "icmp",
    "6": "tcp",
    "17": "udp",
    "33": "dccp",
    "58": "ipv6-icmp",
    "132": "sctp",
    "136": "udplite",
    "icmpv6": "ipv6-icmp",
}

_Key = tuple[Address | None, Proto, int]


@dataclass(frozen=True)
class _Listing:
    """A table taken apart: its blocks by kind and name, and the elements of sets and maps."""

    around: tuple[str, ...]
    blocks: Mapping[str, tuple[str, ...]]
    elements: Mapping[str, tuple[str, ...]]


# Most passes read what the last one read, and parsing 10,000 entries takes longer than all else.
@lru_cache(maxsize=4)
def read_wall(text: str, namespace: int, spelled: Callable[[str], str] = str) -> Wall:
    """The wall that a stateless listing shows; an `AlteredWall` where it is not as ours.

    ``spelled`` makes of a script of ours what this kernel takes of it.
    """
    listing = _take_apart(text)
    strange: list[str] = []
    wall = Wall(
        namespace,
        frozenset(_entries(listing, strange)),
        _networks(listing, strange),
        _mode(listing),
        frozenset(_guards(listing, strange)),
        _guard_audience(listing),
        _ports(listing, operator_rules.FAILSAFE, strange),
        listing.elements.get(_ANSWERING) in (("tcp",), ("6",)),
        _banned(listing, strange),
        _ports(listing, operator_rules.FAILSAFE_UDP, strange),
        f"chain {LOCKDOWN}" in listing.blocks,
        _opened(listing, strange),
        operator_rules.limits_in(listing.blocks),
        operator_rules.log_in(listing.blocks.get(f"chain {STRANGERS}", ())),
    )
    strange += _differences(listing, wall, spelled)
    if not strange:
        return wall
    shown = {each.name: getattr(wall, each.name) for each in fields(wall)}
    return AlteredWall(**shown, differences=tuple(strange))


def _take_apart(text: str) -> _Listing:
    blocks, elements = {}, {}
    for found in _BLOCK.finditer(text):
        title, body = found.groups()
        declared, _, filled = _plainly(body).partition(_ELEMENTS)
        blocks[title] = _lines(declared)
        elements[title] = _split(filled)
    return _Listing(_lines(_OWNED.sub("", _BLOCK.sub("", text))), blocks, elements)


def _plainly(body: str) -> str:
    """Rules as `ruleset` writes them, whichever version of nft printed them."""
    named = _PROTOCOL.sub(lambda found: _NAMES.get(found[0], found[0]), body)
    counted = _IN_USE.sub(r"\1", named)
    return _SYN.sub(ruleset.SYN, counted).replace(_RESET, "reject with tcp reset")


def _guards(listing: _Listing, strange: list[str]) -> Iterator[Guard]:
    """By number: what prints them does not see the folder where nft looks for paths."""
    for level in ruleset.LEVELS:
        title = f"set {ruleset.guarded_set(level)}"
        for element in listing.elements.get(title, ()):
            if element.isdigit():
                yield Guard(level, int(element))
            else:
                strange.append(f"{title}: {element}")


def _ports(listing: _Listing, name: str, strange: list[str]) -> frozenset[int]:
    elements = listing.elements.get(f"set {name}", ())
    strange += (f"set {name}: {element}" for element in elements if not element.isdigit())
    return frozenset(map(int, filter(str.isdigit, elements)))


def _banned(listing: _Listing, strange: list[str]) -> tuple[Network, ...]:
    fours, sixes = (
        _networks_of(listing, f"set {operator_rules.banned_set(family)}", strange)
        for family in (4, 6)
    )
    return (*fours, *sixes)


def _opened(listing: _Listing, strange: list[str]) -> frozenset[tuple[Proto, int]]:
    title = f"set {operator_rules.OPENED}"
    elements = listing.elements.get(title, ())
    try:
        return frozenset(operator_rules.opened_in(elements))
    except ValueError:
        strange.append(f"{title}: {', '.join(elements)}")
        return frozenset()


def _guard_audience(listing: _Listing) -> Audience:
    """What follows the maps in the chain for ports without an entry."""
    rules = listing.blocks.get(f"chain {UNLISTED}", ())
    verdicts = (read_verdict(rule) for rule in rules if rule.startswith("jump "))
    return next((found for found in verdicts if found is not None), (NODE,))


def _lines(text: str) -> tuple[str, ...]:
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _split(filled: str) -> tuple[str, ...]:
    """The elements; no note of ours has a comma in it, so what falls apart here is not ours."""
    parts = filled.strip().removesuffix("}").split(",")
    return tuple(part.strip() for part in parts if part.strip())


def _entries(listing: _Listing, strange: list[str]) -> Iterator[WallEntry]:
    for name in ruleset.MAPS:
        for element in listing.elements.get(f"map {name}", ()):
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
    """What an element is looked up by. Raises ValueError."""
    address = ip_address(found["address"]) if found["address"] else None
    return address, Proto(found["proto"]), int(found["port"])


def _networks(listing: _Listing, strange: list[str]) -> dict[str, tuple[Network, ...]]:
    found: dict[str, list[Network]] = {}
    for title in listing.elements:
        named = read_set_name(title.removeprefix("set "))
        if named is None:
            continue
        found.setdefault(named[0], []).extend(_networks_of(listing, title, strange))
    return {name: merged(networks) for name, networks in found.items()}


def _networks_of(listing: _Listing, title: str, strange: list[str]) -> tuple[Network, ...]:
    networks, others = _read_networks(listing.elements.get(title, ()))
    strange += (f"{title}: {element}" for element in others)
    return networks


# A thousand bans take 30 ms to read, and a new port changes none of them.
@lru_cache(maxsize=32)
def _read_networks(elements: tuple[str, ...]) -> tuple[tuple[Network, ...], tuple[str, ...]]:
    """The networks of a set, merged, and the elements that are none."""
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


def _mode(listing: _Listing) -> Mode:
    """From what happens to strangers, not from what the comment claims."""
    rules = listing.blocks.get(f"chain {STRANGERS}", ())
    return Mode.AUDIT if ruleset.LAST_RULE[Mode.AUDIT] in rules else Mode.ENFORCE


def _differences(listing: _Listing, wall: Wall, spelled: Callable[[str], str]) -> Iterator[str]:
    """Where the table is not as we would write it for ``wall``, elements apart."""
    try:
        ours = _take_apart(spelled(ruleset.table(_skeleton(wall))))
    except EnforceError as error:
        yield str(error)
        return
    yield from _wrongly_walled(listing, wall)
    yield from _wrongly_trusted(listing, wall)
    yield from _compare("table", ours.around, listing.around)
    for title in sorted(ours.blocks.keys() | listing.blocks.keys()):
        if title not in listing.blocks:
            yield f"{title}: missing"
        elif title not in ours.blocks:
            yield f"{title}: not ours"
        else:
            yield from _compare(title, ours.blocks[title], listing.blocks[title])


def _wrongly_walled(listing: _Listing, wall: Wall) -> Iterator[str]:
    """Ports that are closed without an entry, or have one and are not."""
    keys: dict[str, set[_Key | str]] = {name: set() for name in ruleset.MAPS}
    for entry in filter(ruleset.is_walled, wall.entries):
        keys[ruleset.map_of(entry)].add((entry.address, entry.proto, entry.port))
    for name, ours in keys.items():
        title = f"set {ruleset.walled_set(name)}"
        found = {_walled_key(element) for element in listing.elements.get(title, ())}
        yield from (f"{title}: {key} is missing" for key in ours - found)
        yield from (f"{title}: {key} is not ours" for key in found - ours)


def _wrongly_trusted(listing: _Listing, wall: Wall) -> Iterator[str]:
    """Sources that pass and should not, or the other way round."""
    for family in (4, 6):
        title, strange = f"set {ruleset.trusted_set(family)}", list[str]()
        found = {*_networks_of(listing, title, strange)}
        ours = {one for one in merged(ruleset.trusted(wall)) if one.version == family}
        yield from strange
        yield from (f"{title}: {one} is missing" for one in sorted(map(str, ours - found)))
        yield from (f"{title}: {one} is not ours" for one in sorted(map(str, found - ours)))


def _walled_key(element: str) -> _Key | str:
    """The key, or the element as it is where nothing of ours looks like that.

    Text would not do: ``::0.1.0.0`` is what nft calls ``::1:0``.
    """
    found = _WALLED.fullmatch(element)
    try:
        return _key(found) if found else element
    except ValueError:
        return element


def _skeleton(wall: Wall) -> Wall:
    """The smallest wall with the same sets and chains."""
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
    )


def _compare(title: str, ours: tuple[str, ...], found: tuple[str, ...]) -> Iterator[str]:
    if ours != found:
        yield f"{title}: {' | '.join(found)} (ours: {' | '.join(ours)})"
