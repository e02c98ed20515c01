"""The wall after a reboot: a script that plain ``nft -f`` loads before any network is up. Pure.

The script makes the table that `ruleset` describes, with the same names, so that the daemon
finds an altered wall and its first transaction replaces it. It differs where a reboot changes
the facts:

- Guards and their rules are left out: numbers of cgroups end with the kernel that gave them, and
  one rule that this kernel refuses (nft_socket) would cost the whole script.
- Internal entries in the ephemeral range are left out: those ports were drawn by chance, and
  another program may draw them next time.
- Entries outside it stay also while nothing listens there: jobs are stopped before a reboot, and
  a wall of the last second would be empty.
- A fence can take the place of guards: connections to the ephemeral range are for the audience
  of unrecognized listeners, except to failsafe ports and where an entry decides otherwise. It
  sees SYNs only, so answers pass.
- Bans and lockdown stay. Limits and the log are left out: they close nothing. So are the rules
  for NAT and VRFs, which are not there yet.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.names import TABLE
from vllmwall.enforce.nftables.readback import read_wall
from vllmwall.model import BUILT_IN_AUDIENCES, PUBLIC, Proto, Wall, WallEntry

Door = tuple[Proto, int]
"""A protocol and a port."""

_HEAD = """\
# Written by vllmwall, loaded by vllmwall-boot.service: the part of the wall that outlives a
# reboot. The daemon's first pass replaces it by the whole wall. Changes here are overwritten.
"""
_OFTEN_FIXED = range(1, 32768)  # below the kernel's own ephemeral range (ip-sysctl.rst)
_MOST_REMEMBERED = 1024


def boot_script(wall: Wall, *, fence: range | None = None) -> str:
    """The script for the host's own namespace. ``fence``: the ports that are fenced.

    Raises EnforceError for a wall that `check_wall` refuses.
    """
    table = ruleset.fenced(ruleset.table(_without_extras(wall)), fence)
    return f"{_HEAD}add table {TABLE}\ndelete table {TABLE}\n{table.listing()}"


def lasting(
    wall: Wall, remembered: Iterable[WallEntry], others: Collection[Door], ephemeral: range
) -> Wall:
    """The part of a wall that is valid after a reboot.

    ``remembered`` are the entries of the last such wall: they stay until their port has another
    entry or one of ``others`` (listeners of no workload) uses it. Where the ephemeral range
    begins low, ports below the usual one are kept while they are active and not remembered.
    """
    usual = range(max(ephemeral.start, _OFTEN_FIXED.stop), ephemeral.stop)
    entries = {one for one in wall.entries if _outlives(one, wall, usual)}
    taken = {*others, *((one.proto, one.port) for one in wall.entries)}
    names = {*wall.networks, *BUILT_IN_AUDIENCES}
    for one in sorted(remembered, key=repr)[:_MOST_REMEMBERED]:
        is_free = (one.proto, one.port) not in taken
        if is_free and names.issuperset(one.audience) and _outlives(one, wall, ephemeral):
            entries.add(one)
    return replace(wall, entries=frozenset(entries), guards=frozenset())


def remembered_in(script: str) -> frozenset[WallEntry]:
    """The entries of a script of ours; none for any other text."""
    try:
        return read_wall(script, 0).entries
    except (ValueError, EnforceError):
        return frozenset()


def _without_extras(wall: Wall) -> Wall:
    """Bans and lockdown stay; a rule for limits or the log could cost the whole script."""
    entries = frozenset(replace(one, limited=False) for one in wall.entries)
    return replace(
        wall,
        entries=entries,
        guards=frozenset(),
        answering=False,
        limits=None,
        log=None,
        redirected=False,
        vrfs=frozenset(),
    )


def _outlives(entry: WallEntry, wall: Wall, ephemeral: range) -> bool:
    if entry.proto is Proto.TCP and entry.port in wall.failsafe:
        return False
    return entry.audience == (PUBLIC,) or entry.port not in ephemeral
