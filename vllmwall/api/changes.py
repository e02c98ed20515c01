"""Requests and answers of the commands that change walls: reload, up, down, confirm, rollback.

Imports next to nothing: the command line pays for every import.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ChangeRequest:
    """Apply the configuration (reload) or the walls (up).

    ``ssh`` is the asking user's SSH_CONNECTION (sshd(8)), empty without ssh: a change that would
    end it is refused, unless with ``force``. ``unconfirmed`` is the token of a change on trial;
    empty: it is not on trial.
    """

    ssh: str = ""
    force: bool = False
    unconfirmed: str = ""


@dataclass(frozen=True)
class RollbackRequest:
    """Undo the change on trial that has this token."""

    token: str


@dataclass(frozen=True, kw_only=True)
class RemovedWalls:
    """The answer to `down`: the network namespaces (inodes) whose wall was removed."""

    version: int = 1
    removed: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Confirmed:
    """The answer to `confirm`: the command whose change stays."""

    version: int = 1
    confirmed: str


@dataclass(frozen=True, kw_only=True)
class RolledBack:
    """The answer to `rollback`: the command whose change was undone; empty: none."""

    version: int = 1
    rolled_back: str
