"""Facts that only the birth of a process or of a listener shows, as a later daemon may learn them.

Of command lines and environments only what a snapshot may show is kept, and the path of a settings
file. None of it outvotes what is read now: a program that changed since, another process of the
same pid and another queue make it void.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from vllmwall.model import Process, Stack
from vllmwall.observe.files import settings_path
from vllmwall.observe.proc import Stat, read_stat
from vllmwall.observe.redaction import redacted_argv, redacted_env


@dataclass(frozen=True)
class Birth:
    """Of a process: its first parent and, for its ``program``, what that was given at exec, and the
    stack of the workload that it was found in. ``program`` is the one of `proc.Stat`."""

    pid: int
    program: tuple[int, int]
    parent: int
    argv: tuple[str, ...] = field(repr=False)
    env: Mapping[str, str] = field(repr=False)
    remembered: Stack | None

    @classmethod
    def of(cls, process: Process, program: tuple[int, int]) -> Birth:
        """That of a process in the table, secrets and all."""
        return cls(
            pid=process.pid,
            program=program,
            parent=process.birth_ppid or process.ppid,
            argv=process.exec_argv or (),
            env=process.env,
            remembered=process.remembered,
        )

    @property
    def start_time(self) -> int:
        """When the process began; field 22 of its stat."""
        return self.program[0]

    @property
    def key(self) -> tuple[int, ...]:
        """The same for all that is known of one process."""
        return (self.pid,)

    def without_secrets(self) -> Birth:
        """What may be stored of it."""
        return replace(self, argv=_storable(self.argv), env=redacted_env(self.env))

    def restored(self, process: Process, parent: Process | None) -> Process:
        """The process as the daemon knew it that stored this."""
        argv = self._command(process.argv, parent)
        if argv is process.argv:  # still the words of its exec, and so is its environment
            return replace(process, remembered=self.remembered)
        return replace(process, exec_argv=argv, env=self.env, remembered=self.remembered)

    def _command(self, now: Sequence[str], parent: Process | None) -> tuple[str, ...]:
        """The words of its exec: whole where they can still be read, in it or in its parent."""
        whole = (tuple(now), parent.exec_argv or () if parent else ())
        alike = (one for one in whole if len(one) == len(self.argv))
        return next((one for one in alike if _storable(one) == self.argv), self.argv)


@dataclass(frozen=True)
class Asked:
    """Of a listener: the backlog that it asked for, and the queue that the kernel made of it."""

    namespace: int
    inode: int
    backlog: int
    queue: int

    @property
    def key(self) -> tuple[int, ...]:
        """The same for all that is known of one listener."""
        return self.namespace, self.inode

    def without_secrets(self) -> Asked:
        """The same: numbers only."""
        return self


class Recalled:
    """What an earlier daemon stored of processes that still run; of others it is dropped."""

    def __init__(self, births: Iterable[Birth]) -> None:
        self._births = {
            one.pid: one
            for one in births
            if (stat := read_stat(one.pid)) is not None and stat.start_time == one.start_time
        }

    def first_parent(self, pid: int, now: Stat, before: Process | None) -> int:
        """The first parent of a process. ``before`` is what was known before its exec."""
        if before is not None and before.start_time == now.start_time:
            return before.birth_ppid or now.ppid
        birth = self._births.get(pid)
        return birth.parent if birth and birth.start_time == now.start_time else now.ppid

    def restored(
        self, process: Process, program: tuple[int, int], parent: Process | None
    ) -> Process:
        """The process as the earlier daemon knew it, if it runs the same program still."""
        birth = self._births.get(process.pid)
        same = birth is not None and birth.program == program
        return birth.restored(process, parent) if birth and same else process


def is_lost_with_us(process: Process, pids: Container[int]) -> bool:
    """Whether its birth must be stored: it is one of ``pids``, which may change their titles, or
    shows something else already."""
    if not process.exec_argv:
        return False
    changed = process.argv is not process.exec_argv or process.ppid != process.birth_ppid
    return changed or process.remembered is not None or process.pid in pids


@lru_cache(maxsize=64)  # a program and its forks come one after the other
def _storable(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The words without secrets, and the path of the settings file, which is read again."""
    path, kept = settings_path(argv), redacted_argv(argv)
    return tuple(
        path if path == word and before == "--config" else shown
        for before, word, shown in zip(("", *argv), argv, kept, strict=False)
    )
