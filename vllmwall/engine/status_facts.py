"""Everything that `status` and `plan` are computed from.

What was not read back from the kernel just now is None, and None is shown as unknown, never as
good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from vllmwall.decide.adopted import Adopted
from vllmwall.decide.guards import Guarding
from vllmwall.decide.walls import Skipped
from vllmwall.engine.facts import BackendFacts, ConfigFacts, DaemonFacts, Reservation
from vllmwall.model import Address, Listener, Network, Policy, Proto, Recognition, Wall
from vllmwall.networks.sources import PeerSource


@dataclass(frozen=True)
class NamespaceFacts:
    """One network namespace: the wall we want there and the wall that was read back.

    ``active`` is the wall that was read back. None with ``error`` None: the kernel has no wall of
    ours. ``error`` is why the namespace could not be read or written; then ``active`` is ignored.
    ``differences`` are the changes by other programs in our table, one line each.
    ``protection`` is what keeps other programs from changing it: ``owned``, ``watched: why``.
    The counters are what the wall refused since it was put up; None: not known.
    """

    inode: int
    name: str
    wanted: Wall | None = None
    active: Wall | None = None
    error: str | None = None
    refused_packets: int | None = None
    refused_bytes: int | None = None
    protection: str = ""
    differences: tuple[str, ...] = ()

    def has_rule(self, listener: Listener) -> bool:
        """Whether a rule for the port of a listener was read back."""
        place = listener.proto, listener.port
        return any((*place, address) in self._places for address in (None, listener.plain_address))

    @cached_property
    def _places(self) -> frozenset[tuple[Proto, int, Address | None]]:
        entries = self.active.entries if self.active else ()
        return frozenset((one.proto, one.port, one.address) for one in entries)


@dataclass(frozen=True)
class StatusFacts:
    """Everything that `status` knows.

    ``down`` is True after `vllmwall down`. ``problems`` are
    further lines for people (a pass that failed, a backend that had to rebuild).
    ``daemon`` is None when a one-shot command asks without a daemon. ``bans`` counts those in
    force. ``blind`` is why there can be workloads that were not seen. ``reservations`` are the
    reasons why packets may get past the walls (see `vllmwall.engine.reservations`). ``programs``
    are the names of those that listen as web servers do, by pid. ``adopted``: hosts that were
    connected before the first wall of a workload; in audit mode those that enforce would adopt.
    ``joiners``: lines about jobs whose later members would be blocked.
    """

    host: str
    now: float
    recognition: Recognition
    policy: Policy
    namespaces: tuple[NamespaceFacts, ...]
    peers: tuple[Network, ...]
    backend: BackendFacts
    config: ConfigFacts = field(default_factory=ConfigFacts)
    sources: tuple[PeerSource, ...] = ()
    skipped: tuple[Skipped, ...] = ()
    daemon: DaemonFacts | None = None
    down: bool = False
    guarding: Guarding = field(default_factory=Guarding)
    problems: tuple[str, ...] = ()
    bans: int = 0
    blind: str = ""
    reservations: tuple[Reservation, ...] = ()
    programs: Mapping[int, str] = field(default_factory=dict)
    adopted: tuple[Adopted, ...] = ()
    joiners: tuple[str, ...] = ()

    @property
    def mode(self) -> Literal["enforce", "audit", "down"]:
        """What vllmwall does now: ``down`` beats the configured mode."""
        if self.down:
            return "down"
        return self.policy.mode.value

    def skip_reason(self, listener: Listener) -> str | None:
        """Why a listener has no rule; None: it should have one."""
        return self._reasons.get(listener)

    @cached_property
    def _reasons(self) -> Mapping[Listener, str]:
        return {one.listener: one.reason for one in reversed(self.skipped)}
