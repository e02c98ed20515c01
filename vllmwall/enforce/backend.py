"""The protocol of a backend, and the difference between two walls.

A wall is *wanted* (decided) or *actual* (read back from the kernel); `less` is the difference.
A backend owns one thing per network namespace (for nftables: `table inet vllmwall`), reads and
writes that and nothing else, and changes it in single transactions: at no moment is there a
state that is neither the old wall nor the new one.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Protocol

from vllmwall.enforce.nftables.notifications import Watch
from vllmwall.model import Address, Guard, Network, Proto, Wall, WallEntry

_LINES_AROUND = 2


class EnforceError(Exception):
    """The kernel refused a change, or could not be asked. The wall is as it was before.

    ``script`` is what was tried, each line with its number; empty where nothing was sent. The
    message holds the words of the tool and the lines of the script around the one it names.
    """

    def __init__(self, message: str, script: str = "") -> None:
        lines = [f"{number:5}  {line}" for number, line in enumerate(script.splitlines(), 1)]
        super().__init__("\n".join([message.strip(), *_near(message, lines)]))
        self.script = "\n".join(lines)


def _near(message: str, lines: list[str]) -> list[str]:
    """The lines of the script around the first ``line N`` of the message."""
    place = re.search(r"^line (\d+):", message, re.MULTILINE)
    if not lines or place is None:
        return []
    line = int(place.group(1))
    return ["The script:", *lines[max(0, line - 1 - _LINES_AROUND) : line + _LINES_AROUND]]


class ForeignTableError(EnforceError):
    """A table of our name belongs to another program, and only that one can change it."""


@dataclass(frozen=True)
class AlteredWall(Wall):
    """The actual wall where another program changed it, or an older version built it.

    It holds what could be read and is equal to no `Wall`, so a comparison with the wanted wall
    always fails and `Backend.apply` replaces it. ``differences`` name what is not as wanted, one
    line each, for people.
    """

    differences: tuple[str, ...] = ()


@dataclass(frozen=True)
class Refusal:
    """Packets of one source to one port that the wall refused (or would, in audit mode).

    ``packets`` and ``bytes`` count since the source was first remembered; ``seconds_ago`` is when
    the last of them came.
    """

    source: Address
    proto: Proto
    port: int
    packets: int
    bytes: int
    seconds_ago: float = field(default=0.0, compare=False)


@dataclass(frozen=True)
class Counters:
    """What a wall refused since its table was built. In audit mode: what it would have refused.

    ``refusals`` remembers a bounded number of sources for a bounded time, the busiest first;
    ``packets`` and ``bytes`` count them all.
    """

    packets: int = 0
    bytes: int = 0
    refusals: tuple[Refusal, ...] = ()


class Backend(Protocol):
    """Reads and changes the wall of a network namespace. ``path`` names one, e.g. /proc/1/ns/net.

    Every method raises OSError when the namespace is gone or may not be entered, and
    EnforceError when the kernel refuses.
    """

    name: str
    why_no_guards: str
    """Why this kernel supports no guards, in words; empty: it does."""

    def read_back(self, path: str) -> Wall | None:
        """The actual wall, read from the kernel now; None: there is none.

        Equal to the wall that was applied, as long as no other program changed it; an
        `AlteredWall` otherwise. Networks come back merged, as `cidr.merged` has them.
        """

    def apply(self, path: str, wall: Wall, actual: Wall | None) -> Wall:
        """Apply ``wall`` in one transaction; the wall that was applied.

        That is ``wall`` without the guards whose cgroup ended meanwhile. ``actual`` is what
        was last read back: then only the difference is sent. Without it, or when the difference
        is refused, everything is replaced, in one transaction too.
        """

    def close(self, path: str, entries: Collection[WallEntry], guards: Collection[Guard]) -> None:
        """Add these to the actual wall, in one transaction, as fast as possible.

        For events: nothing is compared or read back here. The audiences of ``entries`` must
        have their chains already, and those without peers in them one beside them: no
        source loses its trust here. Adding what is there already changes nothing.
        """

    def remove(self, path: str) -> bool:
        """Remove the wall. False: there was none."""

    def counters(self, path: str) -> Counters:
        """What was refused. All zero where there is no wall."""

    def holds(self, path: str) -> bool:
        """Whether no other program may change the wall, as far as this kernel can prevent it.

        False: a wall has to be applied, an equal one too.
        """

    def ownership(self, path: str) -> str:
        """The protection of the wall from other programs, for status."""

    def watches(self) -> Mapping[int, Watch]:
        """By namespace (inode), its notifications: readable when others change a table."""

    def release(self, living: Collection[int]) -> None:
        """Release everything of namespaces other than these (inodes)."""


def less(wall: Wall, other: Wall) -> Wall:
    """The wall with only those elements (entries, networks, guards, bans) that ``other`` lacks.

    An entry that differs is in it. All names of networks stay, and so does what makes rules.
    """
    theirs = other.networks
    return replace(
        wall,
        entries=wall.entries - other.entries,
        networks={
            name: lacking(ours, theirs.get(name, ())) for name, ours in wall.networks.items()
        },
        guards=wall.guards - other.guards,
        answering=wall.answering and not other.answering,
        banned=lacking(wall.banned, other.banned),
    )


def lacking(ours: Collection[Network], theirs: Collection[Network]) -> tuple[Network, ...]:
    """Those of our networks that are not among theirs, in their order."""
    if ours == theirs:  # as nearly always; hashing 10,000 networks takes 20 ms
        return ()
    known = frozenset(theirs)
    return tuple(network for network in ours if network not in known)
