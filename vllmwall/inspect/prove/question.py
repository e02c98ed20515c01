"""The subject of `vllmwall prove`: the daemon's status, and the policy in the configuration."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from vllmwall.config import DROP_INS, ConfigError, load
from vllmwall.model import PEERS, PUBLIC, Address, Network, Policy, Proto, Role

if TYPE_CHECKING:
    from vllmwall.api.status_answer import Status


@dataclass(frozen=True)
class Question:
    """What to prove. ``networks`` are those of each audience; ``failsafe`` ports must not be closed
    by us; a SYN is sent three times in ``patience`` seconds; ``problems`` are what may spoil the
    result."""

    status: Status
    networks: Mapping[str, Collection[Network]]
    failsafe: Collection[tuple[Proto, int]]
    peers: tuple[Address, ...]
    patience: float
    problems: tuple[str, ...]


def question_of(status: Status, peers: tuple[Address, ...], patience: float) -> Question:
    """The question for a status, with ``peers`` as further sources."""
    files = [Path(file) for file in status.config.files]
    trusted = status.peers.networks
    try:
        policy, problems = load(_main_file(files)).policy(), []
    except ConfigError:
        policy = Policy({Role.API: (PUBLIC,)})
        problems = ["the configuration on disk is invalid, so its groups are unknown"]
    problems += [
        f"{peer} is not a peer: only the API is expected to be open for it"
        for peer in peers
        if not any(peer in network for network in trusted)
    ]
    problems += _changed(files, status.config.loaded)
    networks = {**policy.groups, PEERS: trusted}
    return Question(status, networks, policy.failsafe, peers, patience, tuple(problems))


def _main_file(files: Collection[Path]) -> Path:
    first = next(iter(files), Path(os.devnull))
    return first.parent.parent / "vllmwall.toml" if first.parent.name == DROP_INS else first


def _changed(files: Collection[Path], loaded: float) -> Iterator[str]:
    for file in files:
        if file.exists() and file.stat().st_mtime > loaded:
            yield f"{file} has changed since it was loaded. Run `vllmwall reload`."
