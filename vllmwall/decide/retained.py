"""Wall entries retained while the daemon cannot see other users' processes. Pure.

Without access to other users' processes we would find no workloads and open their ports. So as
long as that lasts, entries are only added: what an earlier daemon or the boot script applied is
retained.
"""

from __future__ import annotations

from dataclasses import replace

from vllmwall.model import NODE, PEERS, PUBLIC, Policy, Wall, WallEntry


def with_retained(wall: Wall, active: Wall | None, policy: Policy) -> Wall:
    """``wall`` with those entries of the active wall for which it has none."""
    if active is None:
        return wall
    present = {_place(one) for one in wall.entries}
    left = (one for one in active.entries if _place(one) not in present)
    entries = (_narrowed(one, wall) for one in left if (one.proto, one.port) not in policy.failsafe)
    return replace(wall, entries=wall.entries.union(entries))


def _place(entry: WallEntry) -> object:
    return entry.family, entry.proto, entry.port, entry.address


def _narrowed(entry: WallEntry, wall: Wall) -> WallEntry:
    """The entry for peers only, if its groups are no longer in the configuration."""
    known = set(entry.audience) <= {PUBLIC, NODE, *wall.networks}
    return entry if known else replace(entry, audience=(PEERS,))
