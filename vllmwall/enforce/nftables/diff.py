"""The nft script that changes one wall into another by its elements. Pure.

Both walls must have the same rules, except those of their audiences: chains and sets are added
and deleted only with an audience.
"""

from __future__ import annotations

from collections.abc import Iterator

from vllmwall.enforce.backend import lacking, less
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.check import check_entries
from vllmwall.enforce.nftables.names import TABLE, guarded_set
from vllmwall.enforce.nftables.objects import Element, Set, Table, script
from vllmwall.enforce.nftables.ruleset import LEVELS, NO_CGROUPS, Cgroups
from vllmwall.model import Wall


def changing(actual: Wall, wanted: Wall, cgroups: Cgroups = NO_CGROUPS) -> str:
    """The script; empty where nothing differs. Raises EnforceError as `check_entries` does."""
    new_entries = wanted.entries - actual.entries
    check_entries(wanted.networks, new_entries, wanted.guard_audience)
    before, after = _part(actual, wanted), _part(wanted, actual)
    return script([*_changes(before, after), *_guards(actual, wanted, cgroups)])


def _part(wall: Wall, other: Wall) -> Table:
    """The sets of a wall, without the elements that ``other`` has too, and its audiences.

    All networks of a wall are merged, so none of these is a neighbour of one that stays.
    """
    trusted = lacking(ruleset.trusted(wall), ruleset.trusted(other))
    sets = ruleset.sets(less(wall, other), trusted, NO_CGROUPS)
    return Table(TABLE, tuple(sets), tuple(ruleset.audience_chains(ruleset.audiences_of(wall))))


def _changes(before: Table, after: Table) -> Iterator[str]:
    """The order matters: nothing is deleted while something refers to it, or added before what it
    refers to. A port is in its map before it is walled."""
    old, new = ({one.name: one for one in table.sets} for table in (before, after))
    for name in filter(new.__contains__, old):
        gone = _missing(old[name], new[name])
        yield from before.change("delete", name, (Element(one.key) for one in gone))
    for chain in before.chains:
        if chain not in after.chains:
            yield f"delete chain {TABLE} {chain.name}"
    yield from (f"delete set {TABLE} {name}" for name in old if name not in new)
    sets = (one for name, one in new.items() if name not in old)
    chains = (chain for chain in after.chains if chain not in before.chains)
    yield from Table(TABLE, tuple(sets), tuple(chains)).commands()
    for name in reversed(new):
        if name in old:
            yield from after.change("add", name, _missing(new[name], old[name]))


def _missing(one: Set, other: Set) -> Iterator[Element]:
    """The elements that only the first has."""
    known = frozenset(other.elements)
    return (element for element in one.elements if element not in known)


def _guards(actual: Wall, wanted: Wall, cgroups: Cgroups) -> Iterator[str]:
    """A cgroup that ended has no path to delete it by: its depth is flushed and filled again."""
    ended = {guard.level for guard in actual.guards - wanted.guards}
    for level in sorted(ended):
        yield f"flush set {TABLE} {guarded_set(level)}"
    new = wanted.guards - actual.guards
    sent = {guard: text for guard, text in cgroups.items() if guard in new or guard.level in ended}
    for level in LEVELS:
        elements = ruleset.guard_elements(level, sent)
        yield from Table(TABLE).change("add", guarded_set(level), elements)
