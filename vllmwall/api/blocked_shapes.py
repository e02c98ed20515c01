"""The JSON of `vllmwall blocked`. Imports next to nothing: the command line pays for it."""

from __future__ import annotations

from typing import Literal

from vllmwall.api.typed import TypedDict

BLOCKED_VERSION = 1


class RefusedJson(TypedDict):
    """One source at one port. ``mode`` audit: it would have been refused, and was let in.

    ``packets`` and ``bytes`` are all that we know of, over every rebuild of the table that the
    daemon saw. ``since`` is when the earliest packet that we know of came, ``last`` the newest
    one (seconds since the epoch). ``name`` is what DNS calls the source, both ways; empty: not
    known, or not asked. ``role`` and ``workload`` are empty where no listener was known there;
    ``role`` is ``ban``, ``limit`` or ``lockdown`` where one of those refused it.
    ``hint`` says in words what this may be, ``command`` what would let it in.
    """

    source: str
    name: str
    namespace: str
    mode: Literal["enforce", "audit"]
    proto: str
    port: int
    role: str
    workload: str
    audience: list[str]
    packets: int
    bytes: int
    since: float
    last: float
    hint: str
    command: str


class RefusedInJson(TypedDict):
    """What the wall of one network namespace refused in all.

    ``unnamed_packets`` are those of sources that the kernel does not remember any more, or never
    had room for. ``full``: it has no room now, so that new sources are missing from the list and
    what is said of the others is a lower bound. ``error``: why it could not be read.
    """

    inode: int
    name: str
    mode: Literal["enforce", "audit"]
    packets: int
    bytes: int
    unnamed_packets: int
    full: bool
    error: str | None


class BlockedJson(TypedDict):
    """The answer to `vllmwall blocked`. ``since``: when the daemon first looked; what the kernel
    remembered then counts too. ``down``: the walls were removed on request. ``more`` is how many
    sources the answer leaves out: it holds a thousand, unless all are asked for."""

    version: int
    time: float
    since: float
    down: bool
    namespaces: list[RefusedInJson]
    sources: list[RefusedJson]
    more: int


class NewRefusalJson(TypedDict):
    """A line of `vllmwall blocked --follow --json`: what came since the line before.

    ``more_packets`` and ``more_bytes`` came since then; the rest is as in `vllmwall blocked`.
    """

    version: int
    time: float
    more_packets: int
    more_bytes: int
    refused: RefusedJson
