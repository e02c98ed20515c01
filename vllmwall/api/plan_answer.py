"""The request and the answer of `vllmwall plan`.

Imports next to nothing: the command line pays for every import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vllmwall.cidr import Network

EntryAction = Literal["add", "remove", "change"]
WallAction = Literal["create", "change", "remove", "none"]


@dataclass(frozen=True)
class PlanRequest:
    """With ``ssh`` (the asking user's SSH_CONNECTION) the answer says whether it would end."""

    ssh: str = ""


@dataclass(frozen=True)
class EntryChange:
    """One port that would be walled, released or given another audience (``was``)."""

    change: EntryAction
    proto: str
    addr: str
    port: int
    audience: tuple[str, ...]
    was: tuple[str, ...]
    note: str


@dataclass(frozen=True)
class NetworkChange:
    """Networks that would be added to an audience and removed from it."""

    audience: str
    add: tuple[Network, ...]
    remove: tuple[Network, ...]


@dataclass(frozen=True)
class NamespacePlan:
    """The changes in one network namespace. ``mode`` is the wanted one, ``was_mode`` today's.

    ``orders`` are the changes of lockdown, open ports, limits and the log, in words. Bans are
    networks of the audience ``banned``.
    """

    inode: int
    name: str
    action: WallAction
    mode: str
    was_mode: str
    entries: tuple[EntryChange, ...]
    networks: tuple[NetworkChange, ...]
    orders: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The answer to `vllmwall plan`."""

    version: int = 1
    changes: bool
    namespaces: tuple[NamespacePlan, ...]
    problems: tuple[str, ...]
