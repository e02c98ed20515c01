"""Peers that outlive the daemon: added at runtime, or last good answers of files and DNS.

The file is in /run, so a reboot forgets it. It holds last good answers because a restart while
DNS does not answer must not cut peers (DESIGN §3, invariant 13). A file that cannot be trusted is
moved aside and reported, never a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from vllmwall.linux.files import save_text
from vllmwall.model import Network
from vllmwall.networks.records import VersionedFile, load, parsed, text_of
from vllmwall.networks.sources import FetchedKind, PeerSource


@dataclass(frozen=True)
class _Added:
    """A peer that was added at runtime."""

    network: Network
    expires: float | None


@dataclass(frozen=True)
class _Answer:
    """The last good answer of one source."""

    kind: FetchedKind
    name: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, kw_only=True)
class _File(VersionedFile):
    runtime: tuple[_Added, ...]
    answers: tuple[_Answer, ...]


@dataclass(frozen=True)
class State:
    """``runtime`` maps a network to when it expires; ``answers`` are the fetched sources."""

    runtime: Mapping[Network, float | None] = field(default_factory=dict)
    answers: tuple[PeerSource, ...] = ()
    error: str | None = None


def load_state(path: Path) -> State:
    """The state in ``path``. With ``error`` it could not be used; see `records.load`."""
    try:
        found, problem = load(path, _state_of)
    except FileNotFoundError:
        return State()
    return found or State(error=f"{problem}. Peers added at runtime must be added again.")


def store_state(path: Path, state: State) -> None:
    """Write ``state`` to ``path``, for root only. Raises OSError."""
    file = _File(
        runtime=tuple(_Added(*each) for each in state.runtime.items()),
        answers=tuple(
            _Answer(cast("FetchedKind", each.kind), each.name, each.networks)
            for each in state.answers
        ),
    )
    save_text(path, text_of(file), mode=0o600)


def _state_of(text: str) -> State:
    file = parsed(_File, text)
    return State(
        {each.network: each.expires for each in file.runtime},
        tuple(PeerSource(each.name, each.kind, each.networks) for each in file.answers),
    )
