"""What must outlive the daemon: runtime peers, and the last good answers of files and DNS.

The file lies in /run, so a reboot forgets it. Last good answers are in it because a restart
while DNS is away must not cut running peers (DESIGN §3, invariant 11). Promises that a file
that is not ours to believe is moved aside and reported, never a crash.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from vllmwall.cidr import parse_network
from vllmwall.linux.files import read_trusted, save_text
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
    """What ``path`` says. With ``error``, it was of no use and has been moved aside."""
    try:
        content = read_trusted(path)
        if content.complaint is not None:
            return State(error=_aside(path, content.complaint))
        return _state_of(content.text)
    except FileNotFoundError:
        return State()
    except ValueError as error:
        return State(error=_aside(path, f"is damaged ({error})"))
    except OSError as error:
        return State(error=f"{path} cannot be read: {error.strerror or error}")


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


def _aside(path: Path, complaint: str) -> str:
    """Move the file out of the way, so that the next start is clean; what to tell people."""
    kept = path.with_name(f"{path.name}.bad")
    try:
        path.replace(kept)
    except OSError as error:
        return f"{path} {complaint}, and cannot be moved aside: {error.strerror}"
    return f"{path} {complaint}; moved to {kept}. Peers added at runtime must be added again."
