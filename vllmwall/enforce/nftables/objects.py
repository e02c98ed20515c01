"""nftables objects (nft(8)) as frozen values, and the one printer of them. Pure.

A table is printed in two ways: as ``nft -s list table`` shows it, and as commands that name its
parts only, which is how the contents of an owned table are added (see `ownership`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import Enum


class Meaning(Enum):
    """The reason that a rule gives for the fate of a packet; `explain` maps it to words.

    ``NONE``: the rule only leads to others, or it is not ours.
    """

    NONE = "none"
    LOOPBACK = "loopback"
    BANNED = "banned"
    TRUSTED = "trusted"  # a source that reaches every walled port
    AUDIENCE = "audience"  # the entry of the port
    GUARD = "guard"
    ABSENT = "absent"  # no socket exists at the port
    FAILSAFE = "failsafe"
    LIMIT = "limit"
    LOCKDOWN = "lockdown"
    OPENED = "opened"  # a port that lockdown leaves open
    ESTABLISHED = "established"
    NETWORK = "network"  # what the network itself needs: ICMP, DHCP, protocols without ports
    UNREADABLE = "unreadable"  # nft finds no transport header in the packet
    REFUSED = "refused"  # the end of everything that is refused
    POLICY = "policy"  # no rule matched
    INACTIVE = "inactive"  # the table is dormant or has no base chain


@dataclass(frozen=True)
class Element:
    """An element of a set, or of a verdict map."""

    key: str
    comment: str = ""
    verdict: str = ""

    def __str__(self) -> str:
        """As nft prints it."""
        comment = f' comment "{self.comment}"' if self.comment else ""
        return f"{self.key}{comment} : {self.verdict}" if self.verdict else self.key + comment


@dataclass(frozen=True)
class Set:
    """A set. ``typed`` is its ``type`` or ``typeof`` statement."""

    name: str
    typed: str
    elements: tuple[Element, ...] = ()
    size: int = 0
    flags: tuple[str, ...] = ()
    timeout: str = ""
    kind = "set"

    def declaration(self) -> Iterator[str]:
        """Its lines, elements apart."""
        yield self.typed
        if self.size:
            yield f"size {self.size}"
        if self.flags:
            yield f"flags {','.join(self.flags)}"
        if self.timeout:
            yield f"timeout {self.timeout}"

    def lines(self) -> Iterator[str]:
        """All lines between its braces."""
        yield from self.declaration()
        if self.elements:
            yield f"elements = {_braced(self.elements)}"


@dataclass(frozen=True)
class Map(Set):
    """A map to verdicts."""

    kind = "map"

    def declaration(self) -> Iterator[str]:
        """Its lines, elements apart."""
        first, *others = super().declaration()
        yield f"{first} : verdict"
        yield from others


@dataclass(frozen=True)
class Rule:
    """A rule. ``needs_socket``: kernels without nft_socket refuse it."""

    text: str
    meaning: Meaning = Meaning.NONE
    needs_socket: bool = False


@dataclass(frozen=True)
class Chain:
    """A chain; a base chain at ``hook`` where ``priority`` is given."""

    name: str
    rules: tuple[Rule, ...]
    priority: str = ""
    hook: str = "input"
    kind = "chain"

    @property
    def base(self) -> str:
        """The statement that makes it a base chain; empty: it is none."""
        priority = self.priority
        return priority and f"type filter hook {self.hook} priority {priority}; policy accept;"

    def lines(self) -> Iterator[str]:
        """All lines between its braces."""
        if self.base:
            yield self.base
        yield from (rule.text for rule in self.rules)


@dataclass(frozen=True)
class Table:
    """A table, or the part of one that is added to it. ``name`` is its family and name."""

    name: str
    sets: tuple[Set, ...] = ()
    chains: tuple[Chain, ...] = ()
    comment: str = ""

    def listing(self) -> str:
        """As ``nft -s list table`` prints it. What exists already is retained."""
        comment = [f'\tcomment "{self.comment}"\n'] if self.comment else []
        blocks = [*comment, *map(_block, self.sets), *map(_block, self.chains)]
        return f"table {self.name} {{\n" + "\n".join(blocks) + "}\n"

    def commands(self) -> Iterator[str]:
        """Commands that add its parts: chains first and rules last, since rules and verdicts may
        point at any part."""
        for chain in self.chains:
            yield f"add chain {self.name} {chain.name}{chain.base and f' {{ {chain.base} }}'}"
        for each in self.sets:
            body = "".join(f"\t\t{line}\n" for line in each.lines())
            yield f"add {each.kind} {self.name} {each.name} {{\n{body}\t}}"
        for chain in self.chains:
            yield from (f"add rule {self.name} {chain.name} {one.text}" for one in chain.rules)

    def change(self, verb: str, name: str, elements: Iterable[Element]) -> Iterator[str]:
        """The command that adds or deletes elements of a set or map; none where there are none."""
        if listed := list(elements):
            yield f"{verb} element {self.name} {name} {_braced(listed)}"


def script(commands: Iterable[str]) -> str:
    """Commands as one script."""
    return "".join(f"{command}\n" for command in commands)


def _block(one: Set | Chain) -> str:
    return "\n".join(
        [f"\t{one.kind} {one.name} {{", *(f"\t\t{each}" for each in one.lines()), "\t}\n"]
    )


def _braced(elements: Iterable[Element]) -> str:
    """One a line."""
    return "{ " + ",\n\t\t\t     ".join(map(str, elements)) + " }"
