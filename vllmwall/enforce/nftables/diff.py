"""The nft script that makes one wall of another by its elements. Pure.

Both walls must be built as `ruleset` builds them, of one mode and with the same orders but bans.
Chains and sets are touched only where an audience comes or goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vllmwall.enforce.backend import changes
from vllmwall.enforce.nftables import operator_rules, ruleset
from vllmwall.enforce.nftables.names import Audience, Networks, chain_name, check, set_name
from vllmwall.enforce.nftables.ruleset import NO_CGROUPS, TABLE, Cgroups
from vllmwall.model import Network, Wall, WallEntry


def changing(standing: Wall, wanted: Wall, cgroups: Cgroups = NO_CGROUPS) -> str:
    """The script; empty where nothing is to do. Raises EnforceError as `names.check` does.

    The order matters: nothing may go while something points at it, or come before what it
    points at.
    """
    changed = changes(standing, wanted)
    check(wanted.networks, changed.added, wanted.guard_audience)
    gone, come = _difference(standing, wanted)
    before, after = ruleset.trusted(standing), ruleset.trusted(wanted)
    kept = standing.networks.keys() & wanted.networks.keys()
    lines = [
        *_walled("delete", changed.removed, changed.added),
        *_entries("delete", changed.removed, ruleset.key),
        *(f"delete chain {TABLE} {chain_name(audience)}" for audience in gone),
        *_delete_sets(standing.networks.keys() - kept),
        *_networks("delete", {name: changed.networks_removed.get(name, ()) for name in kept}),
        *_networks("add", {name: changed.networks_added.get(name, ()) for name in kept}),
        *_new_objects(wanted, wanted.networks.keys() - kept, come),
        *_entries("add", changed.added, ruleset.mapping),
        *_walled("add", changed.added, changed.removed),
        *_answering(standing, wanted),
        *_guards(standing, wanted, cgroups),
        *_sources("delete", operator_rules.banned_set, standing.banned, wanted.banned),
        *_sources("add", operator_rules.banned_set, wanted.banned, standing.banned),
        *_sources("delete", ruleset.trusted_set, before, after),
        *_sources("add", ruleset.trusted_set, after, before),
    ]
    return "".join(f"{line}\n" for line in lines)


def _difference(standing: Wall, wanted: Wall) -> tuple[list[Audience], list[Audience]]:
    """The audiences that lose their chain, and those that get one."""
    before, after = ruleset.audiences_of(standing), ruleset.audiences_of(wanted)
    gone = [audience for audience in before if audience not in after]
    come = [audience for audience in after if audience not in before]
    return gone, come


def _answering(standing: Wall, wanted: Wall) -> Iterator[str]:
    if standing.answering is not wanted.answering:
        verb = "add" if wanted.answering else "delete"
        yield from _command(verb, ruleset.ANSWERING, ["tcp"])


def _guards(standing: Wall, wanted: Wall, cgroups: Cgroups) -> Iterator[str]:
    """A cgroup that ended has no path to delete it by: its depth is flushed and filled anew."""
    ended = {guard.level for guard in standing.guards - wanted.guards}
    for level in sorted(ended):
        yield f"flush set {TABLE} {ruleset.guarded_set(level)}"
    come = wanted.guards - standing.guards
    sent = {guard: text for guard, text in cgroups.items() if guard in come or guard.level in ended}
    yield from _added_guards(sent, ruleset.LEVELS)


def _sources(
    verb: str,
    name: Callable[[int], str],
    these: tuple[Network, ...],
    others: tuple[Network, ...],
) -> Iterator[str]:
    """The networks of the one that the other has not, in the sets of that name."""
    known = frozenset(others)
    changed = [network for network in these if network not in known]
    for family in (4, 6):
        # Not merged: neighbours of what stays would swallow it.
        listed = [str(network) for network in changed if network.version == family]
        yield from _command(verb, name(family), listed)


def _added_guards(cgroups: Cgroups, levels: Iterable[int]) -> Iterator[str]:
    for level in levels:
        yield from _command(
            "add", ruleset.guarded_set(level), ruleset.guard_elements(level, cgroups)
        )


def _walled(verb: str, entries: Iterable[WallEntry], others: Iterable[WallEntry]) -> Iterator[str]:
    """The closed ports of ``entries`` that are not among ``others``: those stay untouched."""
    stay = {(ruleset.map_of(each), ruleset.key(each)) for each in others if ruleset.is_walled(each)}
    for name in ruleset.MAPS:
        keys = [
            ruleset.key(entry)
            for entry in ruleset.in_order(entries)
            if ruleset.map_of(entry) == name and ruleset.is_walled(entry)
        ]
        listed = [key for key in keys if (name, key) not in stay]
        yield from _command(verb, ruleset.walled_set(name), listed)


def _entries(
    verb: str, entries: Iterable[WallEntry], spell: Callable[[WallEntry], str]
) -> Iterator[str]:
    for name in ruleset.MAPS:
        ours = [entry for entry in entries if ruleset.map_of(entry) == name]
        yield from _command(verb, name, [spell(entry) for entry in ruleset.in_order(ours)])


def _networks(verb: str, networks: Networks) -> Iterator[str]:
    for name in sorted(networks):
        for family in (4, 6):
            listed = operator_rules.network_elements(networks[name], family)
            yield from _command(verb, set_name(name, family), listed)


def _command(verb: str, name: str, elements: list[str]) -> Iterator[str]:
    if elements:
        yield f"{verb} element {TABLE} {name} {ruleset.elements(elements)}"


def _delete_sets(names: Iterable[str]) -> Iterator[str]:
    for name in sorted(names):
        for family in (4, 6):
            yield f"delete set {TABLE} {set_name(name, family)}"


def _new_objects(
    wanted: Wall, names: Iterable[str], audiences: Iterable[Audience]
) -> Iterator[str]:
    blocks = ruleset.network_sets({name: wanted.networks[name] for name in names})
    blocks += ruleset.audience_chains(audiences)
    if blocks:
        yield ruleset.in_table(blocks)
