"""Connections that workloads had before their first wall: adopted once, kept over restarts.

A workload adopts when the first wall that drops anything goes up around it: in the first pass of
the first daemon, or when audit mode or `vllmwall down` ends, for what has started meanwhile.
Promises: nothing later adopts anything, whatever became of the daemon, its events or its files;
what cannot be written down first is not adopted; all of it ends with its workload, or at a reboot.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from vllmwall.decide.adopted import Adopted, adopted_by
from vllmwall.engine.contacts import Contacts
from vllmwall.linux.files import save_text
from vllmwall.model import Mode, Network, Policy, Recognition, Workload, WorkloadId
from vllmwall.networks.records import VersionedFile, load, parsed, text_of
from vllmwall.observe.proc import read_stat

STATE_NAME = "adopted.json"
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, kw_only=True)
class _File(VersionedFile):
    """``open_since``: what started later (seconds since the boot ``boot``) has no wall yet that
    drops anything; None: all have."""

    boot: str
    open_since: float | None
    adopted: tuple[Adopted, ...] = ()


@dataclass(frozen=True)
class FirstLook:
    """The facts of an adoption. ``read`` gives the connections of workloads, ``is_walled`` says if
    a wall of an earlier daemon drops something; both are asked only when needed. ``is_whole``: the
    pass has read the whole node.
    """

    policy: Policy
    peers: tuple[Network, ...]
    read: Callable[[tuple[Workload, ...]], Contacts]
    is_walled: Callable[[], bool]
    down: bool
    is_whole: bool


class Adoption:
    """The adopted connections of this node. ``runtime_dir`` keeps them; None: nothing is adopted.

    ``before`` is a file that a daemon of an earlier boot left: then this is no first contact.
    """

    def __init__(self, runtime_dir: Path | None = None, before: Path | None = None) -> None:
        self._path = runtime_dir and runtime_dir / STATE_NAME
        self.is_on = True
        self._unread: tuple[str, ...] = ()
        self._unwritten: tuple[str, ...] = ()
        self._would: tuple[Adopted, ...] = ()
        self._state = self._load(before)
        self._is_unsure = self.is_pending  # until the active walls have been read

    @property
    def is_pending(self) -> bool:
        """Whether some workload may have no wall yet that drops anything."""
        return self._state.open_since is not None

    @property
    def problems(self) -> tuple[str, ...]:
        """What could not be read or written, in words."""
        return (*self._unread, *self._unwritten)

    def adopted(self) -> tuple[Adopted, ...]:
        """What was adopted and has not ended."""
        return self._state.adopted

    def would(self) -> tuple[Adopted, ...]:
        """What enforce mode would adopt now; known in audit mode only."""
        return self._would

    def in_force(self, *, is_on: bool | None = None) -> tuple[Adopted, ...]:
        """What counts now, or would in enforce mode; with another setting if ``is_on`` is given."""
        counts = self.is_on if is_on is None else is_on
        return (*self._state.adopted, *self._would) if counts else ()

    def look(self, found: Recognition, look: FirstLook) -> None:
        """Adopt, if a first wall goes up now. For every pass, before its walls."""
        if self._path is None:
            return
        if self._is_unsure:
            self._is_unsure = False
            if look.is_walled():
                self._state = replace(self._state, open_since=None)
        is_enforced = not look.down and look.policy.mode is Mode.ENFORCE
        if is_enforced and self.is_pending:
            new = self._new(found, look) if self.is_on else ()
            closed = replace(self._state, open_since=None)
            if not self._keep(replace(closed, adopted=(*closed.adopted, *new))):
                self._state = closed
        elif not is_enforced and not self.is_pending:
            self._keep(replace(self._state, open_since=_since_boot()))
        if look.is_whole:
            self._forget_ended()
            is_audited = not look.down and not is_enforced and self.is_on
            self._would = self._new(found, look) if is_audited else ()

    def replace(self, changed: Iterable[Adopted]) -> bool:
        """Put these in the place of those of the same workloads. False: they could not be written
        down, and nothing was changed."""
        by_id = {one.workload: one for one in changed}
        left = tuple(by_id.get(one.workload, one) for one in self._state.adopted)
        return self._keep(replace(self._state, adopted=left))

    def _new(self, found: Recognition, look: FirstLook) -> tuple[Adopted, ...]:
        since = self._state.open_since or 0.0
        workloads = tuple(one for one in found.workloads if one.id.start_time / _TICKS >= since)
        contacts = look.read(workloads)
        self._unread = contacts.problems
        return adopted_by(workloads, look.policy, look.peers, contacts.found, time.time())

    def _forget_ended(self) -> None:
        left = tuple(one for one in self._state.adopted if _lives(one.workload))
        if left != self._state.adopted:
            self._keep(replace(self._state, adopted=left))

    def _keep(self, state: _File) -> bool:
        if self._path is None:
            return False
        try:
            save_text(self._path, text_of(state), mode=0o600)
        except OSError as error:
            why = f"{self._path} cannot be written: {error.strerror or error}"
            self._unwritten = (f"{why}. Nothing that is not in it was adopted",)
            return False
        self._state, self._unwritten = state, ()
        return True

    def _load(self, before: Path | None) -> _File:
        boot = ""
        with suppress(OSError):
            boot = _BOOT.read_text().strip()
        closed = _File(boot=boot, open_since=None)
        if self._path is None:
            return closed
        parse: Callable[[str], _File] = partial(parsed, _File)
        try:
            found, problem = load(self._path, parse)
        except FileNotFoundError:
            is_first = before is None or not before.exists()
            return replace(closed, open_since=0.0) if is_first else closed
        if found is None:
            self._unread = (f"{problem}. Hosts that were adopted are blocked now",)
            return closed
        return found if found.boot == boot else closed


def _lives(workload: WorkloadId) -> bool:
    """Whether its first process has not ended."""
    stat = read_stat(workload.root_pid)
    return stat is not None and stat.start_time == workload.start_time and stat.state not in "ZX"


def _since_boot() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)
