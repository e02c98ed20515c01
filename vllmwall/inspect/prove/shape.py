"""The JSON of `vllmwall prove`, as types."""

from __future__ import annotations

from typing import Literal

from vllmwall.api.typed import TypedDict

PROVE_VERSION = 1


class FileHashJson(TypedDict):
    """A configuration file as it is on the disk; ``sha256`` empty: it cannot be read."""

    file: str
    sha256: str


class ProvedNamespaceJson(TypedDict):
    """One network namespace. ``ruleset_sha256`` is that of our table as read back, empty where
    none stands; the text report says how to compare it. ``surroundings`` are other firewalls and
    kernel settings that can have a say.
    """

    inode: int
    name: str
    ruleset_sha256: str
    surroundings: list[str]


class TryJson(TypedDict):
    """One try. ``address`` is where it went, ``bound`` where the listener listens; ``by`` says
    whose doing it was, as far as that is known.
    """

    namespace: str
    workload: str
    root_pid: int
    role: str
    proto: str
    bound: str
    address: str
    port: int
    source: str
    source_kind: Literal["stranger", "peer"]
    way: Literal["connect", "syn", "datagram"]
    expected: Literal["open", "closed", "not closed by vllmwall"]
    seen: Literal["open", "closed", "no answer", "gone"]
    by: str
    outcome: Literal["as expected", "different", "unproven", "gone"]


class UntriedJson(TypedDict):
    """A listener that was not tried, and why."""

    namespace: str
    listener: str
    role: str
    workload: str
    reason: str


class ProveJson(TypedDict):
    """The answer to `vllmwall prove`. ``time`` is in seconds since the epoch, ``operator`` who
    ran it; ``as_expected`` is what the exit status says.
    """

    version: int
    as_expected: bool
    time: float
    seconds: float
    host: str
    kernel: str
    vllmwall: str
    operator: str
    mode: str
    config: list[FileHashJson]
    namespaces: list[ProvedNamespaceJson]
    tries: list[TryJson]
    untried: list[UntriedJson]
    problems: list[str]
