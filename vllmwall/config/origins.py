"""The file and line that a setting comes from, for `vllmwall explain`.

Reads the files as they are on disk now. A file that is unreadable or no longer valid TOML counts as
empty.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from vllmwall.config.files import FilesRead, TomlFile
from vllmwall.config.problems import KeyPath
from vllmwall.model import Network, Role


def of_audience(files: Iterable[Path], role: Role) -> str:
    """The place of a role's audience, ``file:line``: the last file that names it counts.

    If none does, the words for the default.
    """
    read = _read(files)
    for key in (role.value, "default"):
        for file in reversed(read):
            if file.at(("policy", key)) is not None:
                return f"{file.place(('policy', key))} [policy] {key}"
        if role is Role.API:
            break  # a default opens nothing and closes no API: `Config.policy`
    return "by default: no configuration file names it"


def of_network(files: Iterable[Path], table: KeyPath, network: Network) -> str:
    """The place of a network in a list (``peers.cidrs``, ``groups.NAME``); empty: not found."""
    found = ((file, *one) for file in _read(files) for one in file.networks(table))
    return next((file.place(key) for file, key, one in found if one == network), "")


def _read(files: Iterable[Path]) -> list[TomlFile]:
    reading = FilesRead()
    for file in files:
        reading.add(file)
    return reading.files
