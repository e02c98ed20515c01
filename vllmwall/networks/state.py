"""Peers that outlive the daemon: added at runtime, or last good answers of files and DNS.

The file is in /run, so a reboot forgets it. It holds last good answers because a restart while
DNS does not answer must not cut peers (DESIGN §3, invariant 13). A file that cannot be trusted is
moved aside and reported, never a crash.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

from vllmwall.linux.files import save_text
from vllmwall.model import Network
from vllmwall.networks.records import VersionedFile, load, parsed, text_of
from vllmwall.networks.sources import FetchedKind


@dataclass(frozen=True)
class AddedPeer:
    """A peer that was added at runtime, and when it expires; None: never."""

    network: Network
    expires: float | None


@dataclass(frozen=True)
class LastAnswer:
    """The last good answer of one source."""

    kind: FetchedKind
    name: str
    networks: tuple[Network, ...]


@dataclass(frozen=True, kw_only=True)
class State(VersionedFile):
    """The whole file."""

    runtime: tuple[AddedPeer, ...] = ()
    answers: tuple[LastAnswer, ...] = ()


def load_state(path: Path) -> tuple[State, str | None]:
    """The state in ``path``, and why it could not be used; see `records.load`."""
    try:
        found, problem = load(path, partial(parsed, State))
    except FileNotFoundError:
        return State(), None
    if found is None:
        return State(), f"{problem}. Peers added at runtime must be added again."
    return found, None


def store_state(path: Path, state: State) -> None:
    """Write ``state`` to ``path``, for root only. Raises OSError."""
    save_text(path, text_of(state), mode=0o600)
