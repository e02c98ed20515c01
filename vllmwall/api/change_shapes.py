"""Answers under ``--json`` of commands that check and change: peers, check, down, confirm."""

from __future__ import annotations

from vllmwall.api.shapes import ConfigProblemJson, PeersJson
from vllmwall.api.typed import TypedDict

CHANGES_VERSION = 1


class PeersAnswerJson(PeersJson):
    """`peers list`, `peers add` and `peers remove`."""

    version: int


class CheckJson(TypedDict):
    """`check`: the files that were read, or what is wrong in them."""

    version: int
    ok: bool
    files: list[str]
    problems: list[ConfigProblemJson]


class DownJson(TypedDict):
    """`down`: the network namespaces (inodes) that lost a wall."""

    version: int
    removed: list[int]


class ConfirmJson(TypedDict):
    """`confirm`: the command whose change stays."""

    version: int
    confirmed: str
