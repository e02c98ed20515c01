"""The nft script that makes one wall of another by its elements. Pure.

Both walls must be built as `ruleset` builds them and be of one mode. Chains and sets are
touched only where an audience comes or goes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from vllmwall.enforce import ruleset
from vllmwall.enforce.backend import changes
from vllmwall.enforce.names import Audience, Networks, chain_name, check, set_name
from vllmwall.enforce.ruleset import TABLE
from vllmwall.model import Wall, WallEntry


def changing(standing: Wall, wanted: Wall) -> str:
    """The script; empty where nothing is to do. Raises EnforceError as `names.check` does.

    The order matters: nothing may go while something points at it, or come before what it
    points at.
    """
    changed = changes(standing, wanted)
    check(wanted.networks, changed.added)
    gone, come = _difference(standing, wanted)
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
    ]
    return "".join(f"{line}\n" for line in lines)


def _difference(standing: Wall, wanted: Wall) -> tuple[list[Audience], list[Audience]]:
    """The audiences that lose their chain, and those that get one."""
    before, after = ruleset.audiences_of(standing), ruleset.audiences_of(wanted)
    gone = [audience for audience in before if audience not in after]
    come = [audience for audience in after if audience not in before]
    return gone, come


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
            listed = ruleset.network_elements(networks[name], family)
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
