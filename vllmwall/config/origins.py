"""The file and line that a setting comes from, for `vllmwall explain`.

Reads the files as they are on disk now. A file that is unreadable or no longer valid TOML counts as
empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_network
from pathlib import Path

from vllmwall.config.lines import lines_of
from vllmwall.config.problems import KeyPath
from vllmwall.config.toml import TOMLDecodeError, loads
from vllmwall.model import Network, Role


def of_audience(files: Iterable[Path], role: Role) -> str:
    """The place of a role's audience, ``file:line``: the last file that names it counts.

    If none does, the words for the default.
    """
    listed = list(files)
    for key in (role.value, "default"):
        for file in reversed(listed):
            if line := _read(file)[1].get(("policy", key)):
                return f"{file}:{line} [policy] {key}"
        if role is Role.API:
            break  # a default opens nothing and closes no API: `Config.policy`
    return "by default: no configuration file names it"


def of_network(files: Iterable[Path], table: KeyPath, network: Network) -> str:
    """The place of a network in a list (``peers.cidrs``, ``groups.NAME``); empty: not found."""
    for file in files:
        tree, lines = _read(file)
        for index, text in enumerate(_list(tree, table)):
            if _is_network(text, network):
                line = lines.get((*table, index))
                return f"{file}:{line}" if line else str(file)
    return ""


def _is_network(text: object, network: Network) -> bool:
    try:
        return ip_network(str(text)) == network
    except ValueError:
        return False


def _list(tree: Mapping[str, object], table: KeyPath) -> Iterator[object]:
    found: object = tree
    for key in table:
        found = found.get(str(key)) if isinstance(found, Mapping) else None
    yield from found if isinstance(found, list) else ()


def _read(file: Path) -> tuple[Mapping[str, object], Mapping[KeyPath, int]]:
    """The values of a file, and their lines."""
    try:
        text = file.read_text()
        return loads(text), lines_of(text)
    except (OSError, UnicodeDecodeError, TOMLDecodeError):
        return {}, {}
