"""What must outlive the daemon: runtime peers, and the last good answers of files and DNS.

The file lies in /run, so a reboot forgets it. Last good answers are in it because a restart
while DNS is away must not cut running peers (DESIGN §3, invariant 11). Promises that a file
that is not ours to believe is moved aside and reported, never a crash.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, FiniteFloat, ValidationError

from vllmwall.cidr import parse_network
from vllmwall.config.trusted import read_trusted
from vllmwall.model import Network, PeerSource
from vllmwall.peers.written import replace_text

Runtime = Mapping[Network, float | None]


class _Shape(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class _RuntimeShape(_Shape):
    network: str
    expires: FiniteFloat | None


class _AnswerShape(_Shape):
    kind: Literal["file", "dns"]
    name: str
    networks: list[str]


class _StateShape(_Shape):
    version: int
    runtime: list[_RuntimeShape]
    answers: list[_AnswerShape]


_VERSION = 1


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
    except ValidationError as error:
        return State(error=_aside(path, f"is damaged ({error.error_count()} errors)"))
    except ValueError as error:
        return State(error=_aside(path, f"is damaged ({error})"))
    except OSError as error:
        return State(error=f"{path} cannot be read: {error.strerror or error}")


def store_state(path: Path, state: State) -> None:
    """Write ``state`` to ``path``, for root only. Raises OSError."""
    replace_text(path, _text_of(state), mode=0o600)


def _state_of(text: str) -> State:
    said = _StateShape.model_validate_json(text)
    if said.version != _VERSION:
        raise ValueError(f"version {said.version}, and this vllmwall writes {_VERSION}")
    return State(
        {parse_network(each.network): each.expires for each in said.runtime},
        tuple(
            PeerSource(each.name, each.kind, tuple(map(parse_network, each.networks)))
            for each in said.answers
        ),
    )


def _text_of(state: State) -> str:
    runtime = [
        _RuntimeShape(network=str(network), expires=expires)
        for network, expires in state.runtime.items()
    ]
    answers = [
        _AnswerShape.model_validate(
            {"kind": each.kind, "name": each.name, "networks": list(map(str, each.networks))}
        )
        for each in state.answers
    ]
    shape = _StateShape(version=_VERSION, runtime=runtime, answers=answers)
    return shape.model_dump_json(indent=1) + "\n"


def _aside(path: Path, complaint: str) -> str:
    """Move the file out of the way, so that the next start is clean; what to tell people."""
    kept = path.with_name(f"{path.name}.bad")
    try:
        path.replace(kept)
    except OSError as error:
        return f"{path} {complaint}, and cannot be moved aside: {error.strerror}"
    return f"{path} {complaint}; moved to {kept}. Peers added at runtime must be added again."
