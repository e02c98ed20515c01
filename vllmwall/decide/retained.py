"""What a daemon that cannot see leaves as it is. Pure.

Who cannot look into others' processes finds no workload, and for want of workloads would open
their ports. So while that lasts nothing is taken away: what the daemon of before, or the script
of the boot, put up stands, and what is seen all the same comes to it.
"""

from __future__ import annotations

from dataclasses import replace

from vllmwall.model import NODE, PEERS, PUBLIC, Policy, Wall, WallEntry


def kept(wall: Wall, standing: Wall | None, policy: Policy) -> Wall:
    """``wall`` with the entries of what stands that it has none for."""
    if standing is None:
        return wall
    taken = {_place(one) for one in wall.entries}
    left = (one for one in standing.entries if _place(one) not in taken)
    entries = (_narrowed(one, wall) for one in left if (one.proto, one.port) not in policy.failsafe)
    return replace(wall, entries=wall.entries.union(entries))


def _place(entry: WallEntry) -> object:
    return entry.family, entry.proto, entry.port, entry.address


def _narrowed(entry: WallEntry, wall: Wall) -> WallEntry:
    """For peers, where the groups that it was for have left the configuration."""
    known = set(entry.audience) <= {PUBLIC, NODE, *wall.networks}
    return entry if known else replace(entry, audience=(PEERS,))
