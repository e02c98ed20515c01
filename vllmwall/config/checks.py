"""What only several values together can get wrong, over all files at once.

Each check takes the files as they were read, so that it can name file and line, and passes
over values that are no good by themselves: `vllmwall.config.values` complains about those.

Overlapping groups: two groups overlap when some address is in both. That is refused, whatever
audiences use them: an address with two names would still get in under the second after
somebody took the first out of an audience, and `status` could not say under which name it
came. Networks inside one group, and a group's networks among the peers, may overlap.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

from vllmwall.cidr import everyone_in, parse_network
from vllmwall.config.files import TomlFile
from vllmwall.config.problems import KeyPath, Problem, shown
from vllmwall.config.values import DEFAULT_KEY, suggestion
from vllmwall.model import BUILT_IN_AUDIENCES, PUBLIC, Network

Check = Callable[[list[TomlFile]], Iterator[Problem]]


@dataclass(frozen=True)
class _Found:
    """A network, and where it was read."""

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
                        f"{shown(name)} is no audience{suggestion(name, allowed)}; allowed are "
                        f"{', '.join(allowed)}",
                    )


def check_default(files: list[TomlFile]) -> Iterator[Problem]:
    """What nobody named must not be open to everyone."""
    for file in files:
        if PUBLIC in _strings(_table(file, "policy").get(DEFAULT_KEY)):
            yield file.problem(
                ("policy", DEFAULT_KEY),
                "default cannot be public; name each role that everyone may reach",
            )


def check_groups(files: list[TomlFile]) -> Iterator[Problem]:
    """No address in two groups."""
    groups: dict[str, list[_Found]] = {}
    for file in files:
        for name, value in _table(file, "groups").items():
            groups.setdefault(name, []).extend(_networks(file, ("groups", name), value))
    for (first, ours), (second, theirs) in combinations(groups.items(), 2):
        for one in ours:
            for other in theirs:
                if _overlap(one.network, other.network):
                    yield _overlap_problem(first, one, second, other)


def check_everyone(files: list[TomlFile]) -> Iterator[Problem]:
    """Peers that come to everyone must be meant."""
    found = [each for file in files for each in _peer_networks(file)]
    said = [_table(file, "peers").get("allow_everyone") for file in files]
    if next((value for value in reversed(said) if value is not None), None) is True:
        return
    for whole in everyone_in(each.network for each in found):
        parts = [each for each in found if each.network.version == whole.version]
        widest = min(parts, key=lambda each: each.network.prefixlen)
        yield widest.file.problem(
            widest.key,
            f"{whole} would let everyone reach every port of every workload; if that is what "
            "you want, set peers.allow_everyone = true",
        )


def check_workload_names(files: list[TomlFile]) -> Iterator[Problem]:
    """Names of workload definitions are unique."""
    first: dict[str, str] = {}
    for file in files:
        workloads = file.tree.get("workload")
        for index, workload in enumerate(workloads if isinstance(workloads, list) else ()):
            name = workload.get("name") if isinstance(workload, Mapping) else None
            if not isinstance(name, str):
                continue
            key = ("workload", index, "name")
            if name in first:
                yield file.problem(key, f"{shown(name)} is taken; it is also in {first[name]}")
            here = file.problem(key, "")
            first.setdefault(name, f"{here.file}:{here.line}")


ALL: tuple[Check, ...] = (
    check_audiences,
    check_default,
    check_groups,
    check_everyone,
    check_workload_names,
)


def _overlap(one: Network, other: Network) -> bool:
    return one.version == other.version and one.overlaps(other)


def _overlap_problem(first: str, one: _Found, second: str, other: _Found) -> Problem:
    where = one.file.problem(one.key, "")
    return other.file.problem(
        other.key,
        f"{other.network} overlaps {one.network} of the group {first} ({where.file}:{where.line}); "
        f"an address may be in one group only, and [policy] can name both {first} and {second}",
    )


def _peer_networks(file: TomlFile) -> list[_Found]:
    return _networks(file, ("peers", "cidrs"), _table(file, "peers").get("cidrs"))


def _networks(file: TomlFile, key: KeyPath, value: object) -> list[_Found]:
    found = []
    for index, item in enumerate(value if isinstance(value, list) else ()):
        try:
            found.append(_Found(parse_network(item), file, (*key, index)))
        except (ValueError, AttributeError):  # complained about by itself
            continue
    return found


def _table(file: TomlFile, name: str) -> Mapping[str, object]:
    table = file.tree.get(name)
    return table if isinstance(table, Mapping) else {}


def _strings(value: object) -> list[str]:
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str)]
