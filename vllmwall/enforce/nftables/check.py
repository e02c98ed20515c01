"""Checks of a wall before anything is sent to the kernel. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.names import NAME, Audience, Networks, chain_name
from vllmwall.model import NODE, PUBLIC, Wall, WallEntry

_NOTE = re.compile(r"[A-Za-z0-9 ._:/-]{0,120}")  # the kernel keeps up to 127 bytes
_LONGEST = 255  # NFT_NAME_MAXLEN less the terminator, linux/netfilter/nf_tables.h
_PREFIX = re.compile(r"[A-Za-z0-9 ._:/-]{1,64}")  # the kernel keeps up to 127 bytes
_MOST = 1_000_000
DEVICE = re.compile(r"[A-Za-z0-9._-]{1,15}")  # nft reads * as any ending


def check_wall(wall: Wall) -> None:
    """Raise EnforceError for a wall that contradicts itself, or carries text that nft could read
    as something else. `decide` makes no such wall."""
    check_entries(wall.networks, wall.entries, wall.guard_audience)
    log, limits = wall.log, wall.limits
    if log is not None:
        if not _PREFIX.fullmatch(log.prefix):
            raise EnforceError(
                f"the log prefix {log.prefix!r} has characters that are not allowed in a ruleset"
            )
        _check_number("log.group", log.group, range(65536))
        _check_number("log.per_second", log.per_second, range(1, _MOST))
    for value in (limits.new_per_second, limits.burst, limits.connections) if limits else ():
        if value is not None:
            _check_number("a limit", value, range(1, _MOST))
    for name in wall.vrfs:
        if not DEVICE.fullmatch(name):
            raise EnforceError(
                f"the device {name!r} has characters that are not allowed in a ruleset"
            )
    if limits is None and any(entry.limited for entry in wall.entries):
        raise EnforceError("the wall has limited entries and no limits")


def _check_number(name: str, value: int, allowed: range) -> None:
    if value not in allowed:
        raise EnforceError(f"{name} {value} is not between {allowed.start} and {allowed.stop - 1}")


def check_entries(
    networks: Networks, entries: Collection[WallEntry], guard_audience: Audience
) -> None:
    """Raise EnforceError as `check_wall` does, for a part of a wall."""
    for name in networks:
        if not NAME.fullmatch(name) or name in (PUBLIC, NODE):
            raise EnforceError(f"{name!r} cannot name a set of networks")
    if PUBLIC in guard_audience:
        raise EnforceError(f"audience {guard_audience!r}: a guard opens nothing")
    for audience in {guard_audience, *(entry.audience for entry in entries)}:
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
        raise EnforceError(f"audience {audience!r}: public cannot be combined with other names")
    for name in set(audience) - {PUBLIC, NODE}:
        if name not in networks:
            raise EnforceError(f"audience {audience!r}: the wall has no networks for {name!r}")
    if len(chain_name(audience)) > _LONGEST:
        raise EnforceError(f"audience {audience!r} has too many groups. Join them in one group")


def _check_entry(entry: WallEntry) -> None:
    if not _NOTE.fullmatch(entry.note):
        raise EnforceError(
            f"the note {entry.note!r} has characters that are not allowed in a ruleset"
        )
    if entry.family not in (4, 6) or not 1 <= entry.port <= 65535:
        raise EnforceError(f"{entry} has no such family or port")
    if entry.address is not None and entry.address.version != entry.family:
        raise EnforceError(f"{entry}: address and family differ")
    if entry.limited and (entry.audience, entry.proto.value) != ((PUBLIC,), "tcp"):
        raise EnforceError(f"{entry}: limits are for public TCP ports")
    if entry.proto.value not in ("tcp", "udp"):
        raise EnforceError(f"{entry}: the protocol is neither tcp nor udp")
