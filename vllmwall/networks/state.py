"""Peers that outlive the daemon: added at runtime, or last good answers of files and DNS.

The file is in /run, so a reboot forgets it. It holds last good answers because a restart while
DNS does not answer must not cut peers (DESIGN §3, invariant 13). A file that cannot be trusted is
moved aside and reported, never a crash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vllmwall.cidr import parse_network
from vllmwall.linux.files import save_text
from vllmwall.model import Network
from vllmwall.networks import records
from vllmwall.networks.sources import PeerKind, PeerSource

Runtime = Mapping[Network, float | None]


_VERSION = 1
_KINDS: Mapping[str, PeerKind] = {"file": "file", "dns": "dns"}


@dataclass(frozen=True)
class State:
    """``runtime`` maps a network to when it expires; ``answers`` are the fetched sources."""

    runtime: Runtime = field(default_factory=dict)
    answers: tuple[PeerSource, ...] = ()
    error: str | None = None


def load_state(path: Path) -> State:
    """The state in ``path``. With ``error`` it could not be used; see `records.load`."""
    try:
        found, problem = records.load(path, _state_of)
    except FileNotFoundError:
        return State()
    return found or State(error=f"{problem}. Peers added at runtime must be added again.")


def store_state(path: Path, state: State) -> None:
    """Write ``state`` to ``path``, for root only. Raises OSError."""
    save_text(path, _text_of(state), mode=0o600)


def _state_of(text: str) -> State:
    said = records.parsed(text, "version", "runtime", "answers")
    if said["version"] != _VERSION:
        raise ValueError(f"version {said['version']}, and this vllmwall writes {_VERSION}")
    return State(
        {
            parse_network(records.text(each["network"])): records.end(each["expires"])
            for each in records.records(said["runtime"], "network", "expires")
        },
        tuple(map(_answer, records.records(said["answers"], "kind", "name", "networks"))),
    )


def _answer(said: records.Record) -> PeerSource:
    kind: PeerKind | None = _KINDS.get(records.text(said["kind"]))
    if kind is None:
        raise ValueError(f"kind is one of {', '.join(_KINDS)}")
    networks = map(parse_network, records.texts(said["networks"]))
    return PeerSource(records.text(said["name"]), kind, tuple(networks))


def _text_of(state: State) -> str:
    runtime = [
        {"network": str(network), "expires": expires} for network, expires in state.runtime.items()
    ]
    answers = [
        {"kind": each.kind, "name": each.name, "networks": list(map(str, each.networks))}
        for each in state.answers
    ]
    said = {"version": _VERSION, "runtime": runtime, "answers": answers}
    return json.dumps(said, indent=1) + "\n"
