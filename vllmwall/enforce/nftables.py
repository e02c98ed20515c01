"""The nftables backend: `table inet vllmwall`, by libnftables, in any network namespace.

Never lists, flushes or names anything but that table: other tables belong to others, and an
old nft can crash on what a newer one put into them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from vllmwall.enforce import ruleset
from vllmwall.enforce.backend import AlteredWall, Backend, Counters, EnforceError
from vllmwall.enforce.cgroups import opened
from vllmwall.enforce.delta import changing, closing
from vllmwall.enforce.libnftables import Libnftables, NotThereError
from vllmwall.enforce.listing import read_counters, read_wall
from vllmwall.enforce.names import STRANGERS
from vllmwall.model import Guard, Wall, WallEntry
from vllmwall.netns import inode_of

_SHOW_TABLE = f"list table {ruleset.TABLE}"
# One at a time: nft 1.0.6 fails to find the set when it lists a chain and its sets together.
_SHOW_COUNTERS = (
    f"list chain {ruleset.TABLE} {STRANGERS}",
    *(f"list set {ruleset.TABLE} {memory}" for memory in ruleset.MEMORIES),
)


class Nftables(Backend):
    """Walls in nf_tables. Errors are those of `Backend`."""

    name = "nftables"

    def __init__(self) -> None:
        self._library = Libnftables()

    def read_back(self, path: str) -> Wall | None:
        """What stands in the kernel now; None: no table of ours."""
        try:
            text = self._library.show(path, _SHOW_TABLE)
        except NotThereError:
            return None
        return read_wall(text, inode_of(path))

    def apply(self, path: str, wall: Wall, standing: Wall | None) -> Wall:
        """Make ``wall`` stand, in one transaction: by its elements where that will do."""
        if standing is None or not _is_alike(standing, wall):
            return self._replace(path, wall)
        with opened(wall.guards) as cgroups:
            wall = replace(wall, guards=frozenset(cgroups))
            script = changing(standing, wall, cgroups)
            try:
                if script:
                    self._library.run(path, script)
            except EnforceError:  # the table is not what we took it for
                return self._replace(path, wall)
        return wall

    def close(
        self, path: str, entries: Collection[WallEntry], guards: Collection[Guard]
    ) -> frozenset[Guard]:
        """Add these to the wall that stands."""
        with opened(guards) as cgroups:
            script = closing(entries, guards, cgroups)
            if script:
                self._library.run(path, script)
        return frozenset(cgroups)

    def remove(self, path: str) -> bool:
        """Take our table away. False: there was none."""
        try:
            self._library.run(path, f"delete table {ruleset.TABLE}\n")
        except NotThereError:
            return False
        return True

    def counters(self, path: str) -> Counters:
        """What was refused since the table was built, by source and port where remembered."""
        try:
            return read_counters("".join(self._library.run(path, show) for show in _SHOW_COUNTERS))
        except NotThereError:
            return Counters()

    def _replace(self, path: str, wall: Wall) -> Wall:
        with opened(wall.guards) as cgroups:
            self._library.run(path, ruleset.replacing(wall, cgroups))
            self._library.run(path, ruleset.settling())
            return replace(wall, guards=frozenset(cgroups))


def _is_alike(standing: Wall, wall: Wall) -> bool:
    """Whether the two differ in elements only: then the rules stay."""
    if isinstance(standing, AlteredWall):
        return False
    return (standing.mode, standing.guard_audience, standing.failsafe) == (
        wall.mode,
        wall.guard_audience,
        wall.failsafe,
    )
