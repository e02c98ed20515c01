"""The walls of namespaces as `status` shows them, read back now; and their removal."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from vllmwall.enforce.apply import Walls
from vllmwall.enforce.backend import AlteredWall, Backend, EnforceError, ForeignTableError
from vllmwall.engine.status_facts import NamespaceFacts
from vllmwall.linux.netns import OWN, inode_of
from vllmwall.linux.tracefs import remove_abandoned
from vllmwall.model import Mode, Wall
from vllmwall.observe.namespaces import Namespaces, every_namespace


@dataclass(frozen=True)
class WallFacts:
    """Reads walls back for people."""

    backend: Backend
    walls: Walls
    namespaces: Namespaces

    def read(self, inode: int, wall: Wall) -> NamespaceFacts:
        """The wall of a namespace beside the wanted one."""
        space = self.walls.read_back(inode)
        name = self.namespaces.name(inode)
        altered = space.actual if isinstance(space.actual, AlteredWall) else None
        differences = altered.differences if altered else ()
        return NamespaceFacts(inode, name, wall, space.actual, space.error, differences=differences)

    def down(self, inode: int) -> NamespaceFacts:
        """A namespace in which no wall is wanted; it is not added to those with a wall."""
        name = self.namespaces.name(inode)
        try:
            active = self.backend.read_back(self.namespaces.path(inode))
        except (OSError, KeyError, EnforceError) as error:
            return NamespaceFacts(inode, name, error=str(error))
        return NamespaceFacts(inode, name, active=active)

    def whole(self, inode: int, wall: Wall) -> NamespaceFacts:
        """The same as `read`, with the counters and what protects the table."""
        facts = self.read(inode, wall)
        if facts.error is not None:
            return facts
        try:
            path = self.namespaces.path(inode)
            refused, protection = self.backend.counters(path), self.backend.ownership(path)
        except (OSError, KeyError, EnforceError):
            return facts
        return replace(
            facts,
            refused_packets=refused.packets,
            refused_bytes=refused.bytes,
            protection=protection,
        )

    def drops_something(self, inodes: Iterable[int]) -> bool:
        """Whether a wall in these namespaces is in enforce mode, or cannot be read."""
        try:
            walls = [self.backend.read_back(self.namespaces.path(inode)) for inode in inodes]
        except (OSError, KeyError, EnforceError):
            return True
        return any(wall is not None and wall.mode is Mode.ENFORCE for wall in walls)


def remove_everywhere(backend: Backend, only: frozenset[int] = frozenset()) -> list[int]:
    """Remove our table from every namespace (or only from ``only``); the inodes that had one.

    Removes the trace instances of killed daemons, too. Skips a namespace that ends meanwhile.
    Raises EnforceError when a wall stays; not for a table of our name that somebody else holds in
    another namespace than the host's.
    """
    remove_abandoned()
    removed, errors = list[int](), list[str]()
    for inode, path in every_namespace().items():
        if only and inode not in only:
            continue
        try:
            if backend.remove(path):
                removed.append(inode)
        except OSError:
            continue
        except EnforceError as error:
            if not isinstance(error, ForeignTableError) or is_home(inode, only):
                errors.append(f"net:{inode}: {error}")
    if errors:
        raise EnforceError("\n".join(errors))
    return removed


def is_home(inode: int, only: frozenset[int]) -> bool:
    """Whether a namespace is the daemon's own, or the only one that it is restricted to."""
    return only == {inode} or (not only and inode == inode_of(OWN))
