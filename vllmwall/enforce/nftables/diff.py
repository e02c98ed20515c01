"""The nft script that changes one wall into another by its elements. Pure.

Both walls must have the same rules (see `Changes.elements_only`). Chains and sets are added and
deleted only with an audience.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vllmwall.enforce.backend import changes
from vllmwall.enforce.nftables import ruleset
from vllmwall.enforce.nftables.check import check_entries
from vllmwall.enforce.nftables.names import (
    ANSWERING,
    TABLE,
    Audience,
    Networks,
    banned_set,
    chain_name,
    guarded_set,
    set_name,
    trusted_set,
    walled_set,
)
from vllmwall.enforce.nftables.objects import Element, Table, script
from vllmwall.enforce.nftables.operator_rules import network_elements
from vllmwall.enforce.nftables.ruleset import LEVELS, NO_CGROUPS, Cgroups
from vllmwall.enforce.nftables.syntax import MAPS
from vllmwall.model import Network, Wall, WallEntry

_OURS = Table(TABLE)


def changing(actual: Wall, wanted: Wall, cgroups: Cgroups = NO_CGROUPS) -> str:
    """The script; empty where nothing differs. Raises EnforceError as `check_entries` does.

    The order matters: nothing is deleted while something refers to it, or added before what it
    refers to.
    """
    changed = changes(actual, wanted)
    check_entries(wanted.networks, changed.added, wanted.guard_audience)
    before, after = ruleset.audiences_of(actual), ruleset.audiences_of(wanted)
    trusted_before, trusted_after = ruleset.trusted(actual), ruleset.trusted(wanted)
    kept = actual.networks.keys() & wanted.networks.keys()
    return script(
        [
            *_walled("delete", changed.removed, changed.added),
            *_entries("delete", changed.removed, ruleset.key),
            *(f"delete chain {TABLE} {chain_name(one)}" for one in before if one not in after),
            *_delete_sets(actual.networks.keys() - kept),
            *_networks("delete", {name: changed.networks_removed.get(name, ()) for name in kept}),
            *_networks("add", {name: changed.networks_added.get(name, ()) for name in kept}),
            *_new_objects(
                {name: wanted.networks[name] for name in wanted.networks.keys() - kept},
                [one for one in after if one not in before],
            ),
            *_entries("add", changed.added, ruleset.mapping),
            *_walled("add", changed.added, changed.removed),
            *_answering(actual, wanted),
            *_guards(actual, wanted, cgroups),
            *_sources("delete", banned_set, actual.banned, wanted.banned),
            *_sources("add", banned_set, wanted.banned, actual.banned),
            *_sources("delete", trusted_set, trusted_before, trusted_after),
            *_sources("add", trusted_set, trusted_after, trusted_before),
        ]
    )


def _answering(actual: Wall, wanted: Wall) -> Iterator[str]:
    if actual.answering is not wanted.answering:
        yield from _OURS.change(
            "add" if wanted.answering else "delete", ANSWERING, [Element("tcp")]
        )


def _guards(actual: Wall, wanted: Wall, cgroups: Cgroups) -> Iterator[str]:
    """A cgroup that ended has no path to delete it by: its depth is flushed and filled again."""
    ended = {guard.level for guard in actual.guards - wanted.guards}
    for level in sorted(ended):
        yield f"flush set {TABLE} {guarded_set(level)}"
    new = wanted.guards - actual.guards
    sent = {guard: text for guard, text in cgroups.items() if guard in new or guard.level in ended}
    for level in LEVELS:
        yield from _OURS.change("add", guarded_set(level), ruleset.guard_elements(level, sent))


def _sources(
    verb: str,
    name: Callable[[int], str],
    these: tuple[Network, ...],
    others: tuple[Network, ...],
) -> Iterator[str]:
    """The networks that only the first has, in the sets of that name."""
    known = frozenset(others)
    changed = [network for network in these if network not in known]
    for family in (4, 6):
        # Not merged: neighbours of what stays would swallow it.
        listed = [Element(str(network)) for network in changed if network.version == family]
        yield from _OURS.change(verb, name(family), listed)


def _walled(verb: str, entries: Iterable[WallEntry], others: Iterable[WallEntry]) -> Iterator[str]:
    """The closed ports of ``entries`` that are not among ``others``: those stay untouched."""
    stay = {(ruleset.map_of(each), ruleset.key(each)) for each in others if ruleset.is_walled(each)}
    walled = [
        (ruleset.map_of(entry), ruleset.key(entry))
        for entry in ruleset.in_order(entries)
        if ruleset.is_walled(entry)
    ]
    for name in MAPS:
        listed = [key for place, key in walled if place == name and (place, key) not in stay]
        yield from _OURS.change(verb, walled_set(name), listed)


def _entries(
    verb: str, entries: Iterable[WallEntry], element: Callable[[WallEntry], Element]
) -> Iterator[str]:
    listed = ruleset.in_order(entries)
    for name in MAPS:
        ours = (element(entry) for entry in listed if ruleset.map_of(entry) == name)
        yield from _OURS.change(verb, name, ours)


def _networks(verb: str, networks: Networks) -> Iterator[str]:
    for name in sorted(networks):
        for family in (4, 6):
            listed = network_elements(networks[name], family)
            yield from _OURS.change(verb, set_name(name, family), listed)


def _delete_sets(names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        for family in (4, 6):
            yield f"delete set {TABLE} {set_name(name, family)}"


def _new_objects(networks: Networks, audiences: Iterable[Audience]) -> Iterator[str]:
    sets, chains = ruleset.network_sets(networks), ruleset.audience_chains(audiences)
    yield from Table(TABLE, tuple(sets), tuple(chains)).commands()
