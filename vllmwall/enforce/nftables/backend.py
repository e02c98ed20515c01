"""The nftables backend: `table inet vllmwall`, by libnftables, in any network namespace.

Never lists, flushes or names anything but that table (and its stand-in, see `replacement`): other
tables belong to others, and an old nft can crash on what a newer one put into them.

Where the kernel supports it, the table is owned (`ownership`): no other program can change it.
Elsewhere `watches` report changes by others, so that the caller can read back and apply.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from socket import socket

from vllmwall.enforce.backend import (
    AlteredWall,
    Backend,
    Counters,
    EnforceError,
    ForeignTableError,
)
from vllmwall.enforce.nftables import ownership, replacement, ruleset, set_elements
from vllmwall.enforce.nftables.cgroups import opened
from vllmwall.enforce.nftables.counters import counted
from vllmwall.enforce.nftables.diff import changing
from vllmwall.enforce.nftables.libnftables import Libnftables, NotThereError
from vllmwall.enforce.nftables.names import STAND_IN_NAME, TABLE, TABLE_NAME
from vllmwall.enforce.nftables.notifications import Watch
from vllmwall.enforce.nftables.objects import Table, script
from vllmwall.enforce.nftables.ownership import TableState
from vllmwall.enforce.nftables.probe import why_no_guards
from vllmwall.enforce.nftables.readback import read_wall, unchanged
from vllmwall.linux.netns import inode_of, run_in
from vllmwall.model import Guard, Wall, WallEntry

_SHOW_TABLE = f"list table {TABLE}"
_OWNED = ownership.OWNER | ownership.PERSIST
# The parts of a wall that are elements; a change of any other part changes rules.
_ELEMENTS = ("entries", "networks", "guards", "answering", "banned")
_ORPHAN = "\n\tflags \n"  # how nft 1.0.6 prints the flag persist alone


class Nftables(Backend):
    """Walls in nf_tables. Errors are those of `Backend`.

    ``why_not_owned``: why tables are not to be owned, in words; empty: they are. Without it the
    kernel is asked.
    """

    name = "nftables"

    def __init__(self, why_not_owned: str | None = None) -> None:
        self._library = Libnftables()
        self.why_not_owned = ownership.why_not_owned() if why_not_owned is None else why_not_owned
        self.why_no_guards = why_no_guards()
        self._adjust = ruleset.without_socket_rules if self.why_no_guards else unchanged

    def read_back(self, path: str) -> Wall | None:
        """The actual wall, read from the kernel now; None: no table of ours."""
        text = self.listed(path).replace(_ORPHAN, "\n", 1)
        return read_wall(text, inode_of(path), self._adjust) if text else None

    def listed(self, path: str) -> str:
        """Our table as the kernel holds it, in nft's words, for `evaluation`; empty: none."""
        try:
            return self._library.show(path, _SHOW_TABLE)
        except NotThereError:
            return ""

    def apply(self, path: str, wall: Wall, actual: Wall | None) -> Wall:
        """Apply ``wall`` in one transaction: by its elements where only those differ."""
        held = self._adopted(path)
        if not held or actual is None or not _is_alike(actual, wall):
            return self._replace(path, wall)
        with opened(wall.guards) as cgroups:
            wall = replace(wall, guards=frozenset(cgroups))
            change = changing(actual, wall, cgroups)
            try:
                if change:
                    self._library.run(path, change)
            except EnforceError:  # the table is not as it was read back
                return self._replace(path, wall)
        return wall

    def close(self, path: str, entries: Collection[WallEntry], guards: Collection[Guard]) -> None:
        """Add these to the actual wall."""
        self._library.through(path, lambda ours: set_elements.add(ours, entries, guards))

    def remove(self, path: str) -> bool:
        """Remove our table. False: there was none."""
        state = self._state(path)
        if state is not None and state.owner and state != self._ours(path):
            raise self._belonging(path, state.owner)
        return self._library.through(
            path, lambda ours: ownership.delete(ours, TABLE_NAME, STAND_IN_NAME)
        )

    def counters(self, path: str) -> Counters:
        """Packets refused since the table was built, by source and port where remembered."""
        return run_in(path, counted)

    def holds(self, path: str) -> bool:
        """Whether `apply` has nothing to do for the protection of the table.

        False: an equal wall has to be applied too, so that its table becomes ours.
        """
        return bool(self.why_not_owned) or self._state(path) in (None, self._ours(path))

    def ownership(self, path: str) -> str:
        """The protection of our table, for `status`: ``owned``, or how else it is protected."""
        state = self._state(path)
        if state is None:
            return "no table"
        if state == self._ours(path):
            return "owned"
        if state.owner:
            return f"owned by {self._holder(path, state.owner)}"
        looked_at = inode_of(path) in self._library.watches()
        eye = "watched" if looked_at else "neither owned nor watched"
        return f"{eye}: {self.why_not_owned or 'not adopted yet'}"

    def watches(self) -> Mapping[int, Watch]:
        """By namespace (inode), its notifications: readable when others change a table."""
        return self._library.watches()

    def release(self, living: Collection[int]) -> None:
        """Close the handles of namespaces other than these (inodes): they keep them alive."""
        self._library.release(living)

    def _state(self, path: str) -> TableState | None:
        return self._library.through(path, ownership.table)

    def _ours(self, path: str) -> TableState:
        portid = self._library.through(path, lambda ours: int(ours.getsockname()[0]))
        return TableState(_OWNED, portid)

    def _adopted(self, path: str) -> bool:
        """Adopt the table where it has no owner. False: it has to be replaced."""
        if self.why_not_owned:
            return True
        state = self._state(path)
        if state is not None and state.is_orphan:
            self._library.through(path, ownership.adopt)
            self._library.through(path, _end_stand_in)
            state = self._state(path)
        if state is None or state == self._ours(path):
            return state is not None
        if state.owner:
            raise self._belonging(path, state.owner)
        return False

    def _replace(self, path: str, wall: Wall) -> Wall:
        with opened(wall.guards) as cgroups:
            state = self._state(path)
            table = self._adjust(ruleset.table(wall, cgroups))
            if self.why_not_owned and (state is None or not state.flags & ownership.PERSIST):
                self._library.run(path, ruleset.replacing(table))
                self._library.run(path, ruleset.settling())
            else:
                self._rebuild(path, table, state is not None)
            return replace(wall, guards=frozenset(cgroups))

    def _rebuild(self, path: str, table: Table, exists: bool) -> None:
        """A new table by the steps of `replacement`; the stand-in is for one that had chains."""
        flags = 0 if self.why_not_owned else _OWNED
        if exists:
            self._library.run(path, replacement.standing_in(table))
            replacement.grace()
        self._library.through(path, lambda ours: ownership.make(ours, flags, table.comment))
        self._library.run(path, script(table.commands()))
        if exists:
            replacement.grace()
        self._library.through(path, _end_stand_in)

    def _belonging(self, path: str, portid: int) -> ForeignTableError:
        return ForeignTableError(
            f"our table belongs to {self._holder(path, portid)}, and only that process can change "
            "it. The wall is unchanged. Stop that process, or run `vllmwall down` against it"
        )

    def _holder(self, path: str, portid: int) -> str:
        return run_in(path, lambda: ownership.holder(portid))


def _end_stand_in(ours: socket) -> None:
    ownership.delete(ours, STAND_IN_NAME)


def _is_alike(actual: Wall, wanted: Wall) -> bool:
    """Whether the two differ in elements only: then the rules stay."""
    if isinstance(actual, AlteredWall):
        return False
    elements = {name: getattr(wanted, name) for name in _ELEMENTS}
    return replace(actual, **elements) == wanted
