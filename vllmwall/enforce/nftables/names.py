"""What things are called in our table, and back: audiences, sets, chains, verdicts. Pure.

Names come from users (groups) and go into nft text, so nothing passes here that could mean
anything else there. Different audiences never share a name: groups have a prefix of their own,
and the dot that joins several names is in none of them.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from vllmwall.enforce.backend import EnforceError
from vllmwall.model import NODE, PEERS, PUBLIC, Network, WallEntry

WALLED = "walled"
GUARDED = "guarded"
CGROUPS = "cgroups"
ABSENT = "absent"
UNLISTED = "unlisted"
STRANGERS = "strangers"
BANNED = "banned"
LIMITED = "limited"
LOCKDOWN = "lockdown"

_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_NOTE = re.compile(r"[A-Za-z0-9 ._:/-]{0,120}")  # the kernel keeps up to 127 bytes
_LONGEST = 255  # NFT_NAME_MAXLEN less the terminator, linux/netfilter/nf_tables.h
_CHAIN = "only_"
_GROUP = "group_"
_LIMIT = f"goto {LIMITED}"

Audience = tuple[str, ...]
Networks = Mapping[str, tuple[Network, ...]]


def set_name(name: str, family: int) -> str:
    """The set of one audience name's networks: ``peers4``, ``group_monitoring6``."""
    return f"{name if name == PEERS else _GROUP + name}{family}"


def read_set_name(text: str) -> tuple[str, int] | None:
    """The audience name and family of a set; None: no set of networks."""
    found = re.fullmatch(rf"(?:({PEERS})|{_GROUP}({_NAME.pattern}))([46])", text)
    return (found[1] or found[2], int(found[3])) if found else None


def chain_name(audience: Audience) -> str:
    """The chain that lets an audience in: ``only_peers``, ``only_monitoring.peers``."""
    return _CHAIN + ".".join(audience)


def verdict(audience: Audience) -> str:
    """What a packet to a listener of this audience meets."""
    if audience == (PUBLIC,):
        return "accept"
    if audience == (NODE,):
        return f"goto {STRANGERS}"  # the host itself comes over lo, which is accepted before
    return f"jump {chain_name(audience)}"  # a jump comes back where the chain is gone: to a drop


def verdict_of(entry: WallEntry) -> str:
    """What a packet to this entry's port meets."""
    return _LIMIT if entry.limited else verdict(entry.audience)


def is_limit(text: str) -> bool:
    """Whether a verdict is that of a limited entry."""
    return text == _LIMIT


def read_verdict(text: str) -> Audience | None:
    """The audience of a verdict; None: not one of ours."""
    if text in ("accept", _LIMIT):
        return (PUBLIC,)
    if text == f"goto {STRANGERS}":
        return (NODE,)
    target = text.removeprefix(f"jump {_CHAIN}")
    return tuple(target.split(".")) if target != text else None


def has_chain(audience: Audience) -> bool:
    """Whether the audience needs a chain of its own."""
    return audience not in ((PUBLIC,), (NODE,))


def check(networks: Networks, entries: Collection[WallEntry], guarding: Audience) -> None:
    """Raise EnforceError for part of a wall that contradicts itself, or carries text that nft
    could read as something else. `decide` makes no such wall."""
    for name in networks:
        if not _NAME.fullmatch(name) or name in (PUBLIC, NODE):
            raise EnforceError(f"{name!r} cannot name a set of networks")
    if PUBLIC in guarding:
        raise EnforceError(f"audience {guarding!r}: a guard opens nothing")
    for audience in {guarding, *(entry.audience for entry in entries)}:
        _check_audience(audience, networks)
    for entry in entries:
        _check_entry(entry)
    places = {(entry.family, entry.proto, entry.port, entry.address) for entry in entries}
    if len(places) < len(entries):
        raise EnforceError("the wall has two entries for one port and address")


def _check_audience(audience: Audience, networks: Networks) -> None:
    if not audience or list(audience) != sorted(set(audience)):
        raise EnforceError(f"audience {audience!r} is not sorted, names repeat, or it is empty")
    if PUBLIC in audience and len(audience) > 1:
        raise EnforceError(f"audience {audience!r}: public stands alone")
    for name in set(audience) - {PUBLIC, NODE}:
        if name not in networks:
            raise EnforceError(f"audience {audience!r}: the wall has no networks for {name!r}")
    if len(chain_name(audience)) > _LONGEST:
        raise EnforceError(f"audience {audience!r} has too many groups; use one group for them")


def _check_entry(entry: WallEntry) -> None:
    if not _NOTE.fullmatch(entry.note):
        raise EnforceError(f"the note {entry.note!r} may not go into a ruleset")
    if entry.family not in (4, 6) or not 1 <= entry.port <= 65535:
        raise EnforceError(f"{entry} has no such family or port")
    if entry.address is not None and entry.address.version != entry.family:
        raise EnforceError(f"{entry}: address and family differ")
    if entry.limited and (entry.audience, entry.proto.value) != ((PUBLIC,), "tcp"):
        raise EnforceError(f"{entry}: limits are for public TCP ports")
    if entry.proto.value not in ("tcp", "udp"):
        raise EnforceError(f"{entry}: no packet of this protocol comes")
