"""The walls of all network namespaces: as last read back, and every change to them.

What a wall must be is decided in `vllmwall.engine.reconciler`; here it is applied, up to three
times, read back and compared. A wall that cannot be changed stays as it is, and is reported.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field, replace

from vllmwall.enforce.backend import (
    AlteredWall,
    Backend,
    EnforceError,
    ForeignTableError,
    lacking,
    less,
)
from vllmwall.enforce.nftables.ruleset import is_walled
from vllmwall.enforce.sever import Severed, sever
from vllmwall.model import Guard, Mode, Network, Wall, WallEntry

_TRIES = 3


@dataclass
class Space:
    """The wall of one network namespace as last read back, why it could not be read (``error``),
    why the last change to it was refused (``failure``), and whether that is because the table
    belongs to another program (``foreign``)."""

    actual: Wall | None = None
    error: str | None = None
    failure: str | None = None
    foreign: bool = False


@dataclass(frozen=True)
class Change:
    """One change to a wall that was made, for the log. ``severed``: the connections it ended."""

    namespace: int
    before: Wall | None
    after: Wall
    severed: Severed = field(default_factory=Severed)


@dataclass(frozen=True)
class Closed:
    """What events closed at once, before anybody recognized what it is."""

    entries: frozenset[WallEntry] = frozenset()
    guards: frozenset[Guard] = frozenset()


@dataclass
class Walls:
    """Reads and changes the walls. ``path`` leads into a namespace (by inode); raises KeyError.

    ``on_change`` and ``on_failure`` (namespace, reason) are called after each. ``severed`` counts
    the connections that were reset. ``closed`` is what `close` added since somebody emptied it.
    """

    backend: Backend
    path: Callable[[int], str]
    on_change: Callable[[Change], None] = field(default=lambda change: None)
    on_failure: Callable[[int, str], None] = field(default=lambda namespace, why: None)
    spaces: dict[int, Space] = field(default_factory=dict)
    cannot_sever: str | None = None
    severed: int = 0
    closed: dict[int, Closed] = field(default_factory=dict)

    def actual(self, inode: int) -> Wall | None:
        """The wall as last read back or changed; None: there is none, or it is unknown."""
        space = self.spaces.get(inode)
        return None if space is None or space.error is not None else space.actual

    def read_back(self, inode: int) -> Space:
        """Read the wall from the kernel."""
        space = self.spaces.setdefault(inode, Space())
        try:
            space.actual = self.backend.read_back(self.path(inode))
            space.error = None
        except (OSError, KeyError, EnforceError) as error:
            space.error = str(error)
        return space

    def put(self, inode: int, wall: Wall) -> None:
        """Apply the wall where the one last read back differs; else nothing is sent."""
        space = self.spaces.setdefault(inode, Space())
        if space.error is None and space.actual != wall:
            self._enforce(inode, wall, space)

    def settle(self, inode: int, wall: Wall) -> None:
        """Read back first, apply where it differs, and protect the table from other programs."""
        space = self.read_back(inode)
        if space.error is None and (space.actual != wall or not self._is_held(inode)):
            self._enforce(inode, wall, space)
        elif space.error is None:
            space.failure = None

    def close(
        self, inode: int, entries: frozenset[WallEntry], guards: frozenset[Guard] = frozenset()
    ) -> None:
        """Close ports at once, before anything is read: a pass must come after it.

        Raises OSError, KeyError and EnforceError; the wall is then as it was.
        """
        actual = self.actual(inode)
        if actual is None or (entries <= actual.entries and guards <= actual.guards):
            return
        self.backend.close(self.path(inode), entries, guards)
        self.spaces[inode].actual = replace(
            actual, entries=actual.entries | entries, guards=actual.guards | guards
        )
        before = self.closed.get(inode, Closed())
        self.closed[inode] = Closed(before.entries | entries, before.guards | guards)

    def with_closed(self, wall: Wall) -> Wall:
        """The wall with what was closed meanwhile, where it says nothing about that."""
        closed = self.closed.get(wall.namespace)
        if closed is None:
            return wall
        places = {_place(one) for one in wall.entries} if closed.entries else set()
        added = (one for one in closed.entries if _place(one) not in places)
        return replace(wall, entries=wall.entries.union(added), guards=wall.guards | closed.guards)

    def release(self, living: Collection[int]) -> None:
        """Forget the namespaces other than these: their numbers can be given again."""
        self.spaces = {inode: space for inode, space in self.spaces.items() if inode in living}
        self.backend.release(self.spaces.keys())

    def failures(self) -> Iterator[tuple[int, str]]:
        """The namespaces whose last change was refused, and why."""
        for inode, space in self.spaces.items():
            if space.failure is not None:
                yield inode, space.failure

    def _is_held(self, inode: int) -> bool:
        try:
            return self.backend.holds(self.path(inode))
        except (OSError, KeyError, EnforceError):
            return True  # the next pass asks again; the wall itself is as wanted

    def _enforce(self, inode: int, wall: Wall, space: Space) -> None:
        before = space.actual
        for attempt in range(_TRIES):
            try:
                # The last try rebuilds the whole table: a delta is only as good as our memory.
                last = attempt == _TRIES - 1
                made = self.backend.apply(self.path(inode), wall, None if last else space.actual)
            except (OSError, KeyError, EnforceError) as error:
                space.error = str(error)
                space.foreign = isinstance(error, ForeignTableError)
                continue
            self.read_back(inode)
            if space.actual == made:
                space.failure, space.foreign = None, False
                self.on_change(Change(inode, before, made, self._sever(inode, before, made)))
                return
            space.error = space.error or "the kernel shows another wall than the one we wrote"
        space.failure = space.error
        self.on_failure(inode, str(space.error))

    def _sever(self, inode: int, before: Wall | None, after: Wall) -> Severed:
        """Reset what this change began to refuse. The rules refuse it anyway, so failing here
        fails nothing."""
        if not refuses_more(before, after):
            return Severed()
        try:
            severed = sever(self.path(inode), after, _new_bans(before, after))
        except (OSError, KeyError) as error:
            severed = Severed(unsupported=f"connections could not be reset: {error}")
        self.cannot_sever = severed.unsupported
        self.severed += len(severed.connections)
        return severed


def _place(entry: WallEntry) -> object:
    return entry.family, entry.proto, entry.port, entry.address


def refuses_more(before: Wall | None, after: Wall) -> bool:
    """Whether a source that could connect before may be refused now: a quick, cautious look."""
    if after.mode is not Mode.ENFORCE:
        return False
    if before is None or isinstance(before, AlteredWall) or before.mode is not after.mode:
        return True
    added = any(map(is_walled, after.entries - before.entries)) or _new_bans(before, after)
    return bool(added or any(less(before, after).networks.values()))


def _new_bans(before: Wall | None, after: Wall) -> tuple[Network, ...]:
    known = before.banned if before and before.mode is after.mode else ()
    return lacking(after.banned, known)
