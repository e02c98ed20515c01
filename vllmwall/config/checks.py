"""Checks of several values together, over all files at once.

Each check takes the files as they were read, so that it can name file and line, and skips values
that are invalid by themselves: `vllmwall.config.values` reports those.

Groups must not overlap: an address in two groups would still be allowed by the second after the
first was removed from an audience, and `status` could not name the group that allowed it. Networks
inside one group, and a group's networks among the peers, may overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from vllmwall.cidr import everyone_in
from vllmwall.config.files import TomlFile
from vllmwall.config.problems import KeyPath, Problem, shown
from vllmwall.config.values import DEFAULT_KEY, suggestion
from vllmwall.model import BUILT_IN_AUDIENCES, PUBLIC, Network, Stack
from vllmwall.recognize.row_file import table

Check = Callable[[list[TomlFile]], Iterator[Problem]]


@dataclass(frozen=True)
class _Found:
    """A network, and the place where it was read."""

    network: Network
    file: TomlFile
    key: KeyPath


def check_audiences(files: list[TomlFile]) -> Iterator[Problem]:
    """Every audience that [policy] names must exist."""
    groups = tuple(sorted({name for file in files for name in _table(file, "groups")}))
    allowed = (*BUILT_IN_AUDIENCES, *groups)
    for file in files:
        for role, value in _table(file, "policy").items():
            for name in _strings(value):
                if name not in allowed:
                    yield file.problem(
                        ("policy", role),
                        f"{shown(name)} is not an audience{suggestion(name, allowed)}; allowed are "
                        f"{', '.join(allowed)}",
                    )


def check_default(files: list[TomlFile]) -> Iterator[Problem]:
    """Roles that are not named must not be public."""
    for file in files:
        if PUBLIC in _strings(_table(file, "policy").get(DEFAULT_KEY)):
            yield file.problem(
                ("policy", DEFAULT_KEY),
                "default cannot be public. Name each role that everyone may reach.",
            )


def check_groups(files: list[TomlFile]) -> Iterator[Problem]:
    """No address is in two groups."""
    groups: dict[str, list[_Found]] = {}
    for file in files:
        for name in _table(file, "groups"):
            groups.setdefault(name, []).extend(_networks(file, ("groups", name)))
    for (first, ours), (second, theirs) in combinations(groups.items(), 2):
        for one in ours:
            for other in theirs:
                if _overlap(one.network, other.network):
                    yield _overlap_problem(first, one, second, other)


def check_everyone(files: list[TomlFile]) -> Iterator[Problem]:
    """Peers must not cover all addresses by accident."""
    found = [each for file in files for each in _networks(file, ("peers", "cidrs"))]
    said = [_table(file, "peers").get("allow_everyone") for file in files]
    if next((value for value in reversed(said) if value is not None), None) is True:
        return
    for whole in everyone_in(each.network for each in found):
        parts = [each for each in found if each.network.version == whole.version]
        widest = min(parts, key=lambda each: each.network.prefixlen)
        yield widest.file.problem(
            widest.key,
            f"{whole} would open every port of every workload to everyone. If you want that, "
            "set peers.allow_everyone = true.",
        )


def check_workload_names(files: list[TomlFile]) -> Iterator[Problem]:
    """Names of workload definitions are unique."""
    yield from _repeated(files, "workload", "name", {})


def check_program_parts(files: list[TomlFile]) -> Iterator[Problem]:
    """Parts of programs are unique in their stack, also among our own rows."""
    ours = "the rows of vllmwall itself: see vllmwall/recognize/stacks.toml"
    known = {(row.stack.value, row.part): ours for row in table().programs}
    yield from _repeated(files, "program", "part", known)


def _repeated(
    files: list[TomlFile], kind: str, name: str, known: Mapping[tuple[str, str], str]
) -> Iterator[Problem]:
    """The names that a list of tables has twice. ``known``: the place of others."""
    first = dict(known)
    for file in files:
        for key, one in items(file, kind):
            found = (str(one.get("stack", Stack.CUSTOM.value)), str(one.get(name)))
            if found in first and isinstance(one.get(name), str):
                message = f"{shown(found[1])} is not unique: it is also in {first[found]}"
                yield file.problem((*key, name), message)
            first.setdefault(found, file.place((*key, name)))


ALL: tuple[Check, ...] = (
    check_audiences,
    check_default,
    check_groups,
    check_everyone,
    check_workload_names,
    check_program_parts,
)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _overlap_problem(first: str, one: _Found, second: str, other: _Found) -> Problem:
    return other.file.problem(
        other.key,
        f"{other.network} overlaps {one.network} of the group {first} ({one.file.place(one.key)}). "
        f"An address may be in one group only; [policy] can name both {first} and {second}.",
    )


def _networks(file: TomlFile, key: KeyPath) -> Iterator[_Found]:
    return (_Found(network, file, place) for place, network in file.networks(key))


def _table(file: TomlFile, name: str) -> Mapping[str, object]:
    table = file.tree.get(name)
    return table if isinstance(table, Mapping) else {}


def items(file: TomlFile, kind: str) -> Iterator[tuple[KeyPath, Mapping[str, object]]]:
    """The tables of a list of tables like ``[[workload]]``, each with its key."""
    listed = file.tree.get(kind)
    for index, one in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(one, Mapping):
            yield (kind, index), one


def _strings(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]
