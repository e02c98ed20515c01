"""Names in our table, and their meaning read back: audiences, sets, chains, verdicts. Pure.

Names of groups come from users and become part of nft text; `check` refuses those that could mean
anything else there. Different audiences never share a name: groups have a prefix of their own,
and no name contains the dot that joins several of them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from vllmwall.model import NODE, PEERS, PUBLIC, Network, WallEntry

TABLE_NAME = "vllmwall"
TABLE = f"inet {TABLE_NAME}"
STAND_IN_NAME = f"{TABLE_NAME}_standin"
STAND_IN = f"inet {STAND_IN_NAME}"
"""The table that closes the ports while ours is replaced (see `replacement`)."""

WALLED = "walled"
LOOPBACK = "loopback"
SHIFTED = "shifted"
REDIRECTED = "redirected"
REDIRECTED_PORTS = "redirected_ports"
REDIRECTED_WALLED = "redirected_walled"
GUARDED = "guarded"
CGROUPS = "cgroups"
ABSENT = "absent"
UNLISTED = "unlisted"
STRANGERS = "strangers"
BANNED = "banned"
LIMITED = "limited"
LOCKDOWN = "lockdown"

FAILSAFE = "failsafe"
FAILSAFE_UDP = "failsafe_udp"
OPENED = "opened"
ANSWERING = "answering"
MEMORIES = {4: "refused4", 6: "refused6"}
"""The sets that remember refused sources and ports, by family."""

NAME = re.compile(r"[a-z_][a-z0-9_-]{0,30}")
"""Groups of the configuration begin with a letter, ours (`vllmwall.decide.adopted`) do not."""
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
    found = re.fullmatch(rf"(?:({PEERS})|{_GROUP}({NAME.pattern}))([46])", text)
    return (found[1] or found[2], int(found[3])) if found else None


def trusted_set(family: int) -> str:
    """The set of sources that reach every walled port."""
    return f"trusted{family}"


def banned_set(family: int) -> str:
    """The set of banned sources of a family."""
    return f"banned{family}"


def walled_set(name: str) -> str:
    """The set of closed ports that belongs to a map."""
    return f"walled_{name}"


def guarded_set(level: int) -> str:
    """The set of guarded cgroups of one depth."""
    return f"guarded_{level}"


def chain_name(audience: Audience) -> str:
    """The chain that accepts an audience: ``only_peers``, ``only_monitoring.peers``."""
    return _CHAIN + ".".join(audience)


def verdict(audience: Audience) -> str:
    """The verdict on a packet to a listener of this audience."""
    if audience == (PUBLIC,):
        return "accept"
    if audience == (NODE,):
        return f"goto {STRANGERS}"  # packets of the host itself come over lo, accepted earlier
    return f"jump {chain_name(audience)}"  # returns, to a drop, where the chain is gone


def verdict_of(entry: WallEntry) -> str:
    """The verdict on a packet to the port of this entry."""
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
