"""What a stack says about a process and about a listener: the shapes that all stacks share.

Imports nothing but the model and the command line reader.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from vllmwall.model import Evidence, Label, Listener, Process, Proto, RaySession, Role, Stack
from vllmwall.recognize.commandline import Command, read_command
from vllmwall.recognize.definitions import WorkloadDefinition

_Answer = TypeVar("_Answer")

_DEEPEST = 64

CHILD = "child"
"""The part of a process of which only its stack is known."""


@dataclass(frozen=True)
class Claim:
    """A stack says: this process is ours.

    ``part`` is what it is there (``server``, ``worker``, ``raylet``…). ``launched`` is True
    when its own command line says so, False when only a title, threads or what is left of the
    environment do; those may only ever close ports. ``family`` is a name that scattered parts
    of one job share (a Ray session).
    """

    stack: Stack
    part: str
    launched: bool = False
    family: str = ""


@dataclass(frozen=True)
class Candidate:
    """A process that may belong to a stack, with its command line read once.

    ``command`` is the command line at exec. ``title`` is the first word of what the process
    calls itself now (comm where argv is gone). ``is_python``: the executed file is a Python
    interpreter, as far as can be seen.
    """

    process: Process
    command: Command
    title: str
    is_python: bool

    @classmethod
    def of(cls, process: Process) -> Candidate:
        """Read a process's command line."""
        command, argv = read_command(process.started_as), process.argv
        title = argv[0].partition(" ")[0] if argv and argv[0] else process.comm
        executed = process.exe.rpartition("/")[2] or command.binary
        return cls(process, command, title, executed.startswith(("python", "pypy")))

    def has_thread(self, *beginnings: str) -> bool:
        """It has a thread whose name begins like one of these."""
        return any(name.startswith(beginnings) for name in self.process.threads)

    def may_have(self, *libraries: str) -> bool:
        """It has mapped one of these libraries, or nobody looked."""
        known = self.process.libraries
        return known is None or not known.isdisjoint(libraries)

    def has(self, *libraries: str) -> bool:
        """It is known to have mapped one of these libraries."""
        return self.process.libraries is not None and self.may_have(*libraries)


@dataclass(frozen=True)
class WorkloadTree:
    """One workload under examination: all that a label may depend on.

    ``parents`` leads from each member to its parent; ``claims`` holds the members that a
    stack claimed; ``defined`` those that a definition matched. ``listeners`` are by main owner.
    ``queue_caps`` is the longest accept queue seen in each network namespace: somaxconn, if
    anything there asked for more.
    """

    root: int
    processes: Mapping[int, Process]
    parents: Mapping[int, int]
    claims: Mapping[int, Claim]
    members: frozenset[int]
    listeners: Mapping[int, tuple[Listener, ...]]
    queue_caps: Mapping[int, int]
    defined: Mapping[int, tuple[WorkloadDefinition, ...]] = field(default_factory=dict)
    ray_sessions: tuple[RaySession, ...] = ()
    _answers: dict[tuple[object, int], object] = field(default_factory=dict, repr=False)

    def once(self, question: Callable[[WorkloadTree, int], _Answer], pid: int) -> _Answer:
        """The answer of a pure function of this tree and a pid, computed only once."""
        key = (question, pid)
        if key not in self._answers:
            self._answers[key] = question(self, pid)
        return cast("_Answer", self._answers[key])

    def candidate(self, pid: int) -> Candidate:
        """The process ``pid`` with its command line."""
        return self.once(WorkloadTree._candidate, pid)

    def line(self, pid: int) -> tuple[int, ...]:
        """``pid`` and its ancestors inside the workload, nearest first: no more than real ones
        have, whatever tree a user builds."""
        return self.once(WorkloadTree._line, pid)

    def _claim_of(self, pid: int) -> Claim:
        found = [self.claims[one] for one in self.line(pid) if one in self.claims]
        found = [one for one in found if one.part != CHILD] or found
        return found[0] if found else self.claims[self.root]

    def _candidate(self, pid: int) -> Candidate:
        return Candidate.of(self.processes[pid])

    def _line(self, pid: int) -> tuple[int, ...]:
        found = [pid]
        while (parent := self.parents.get(found[-1])) in self.members and parent not in found:
            if len(found) == _DEEPEST:
                break
            found.append(parent)
        return tuple(found)

    def claim_of(self, pid: int) -> Claim:
        """The claim on ``pid`` or on its nearest ancestor that was claimed for what it is.

        What only the environment or our memory told says less than such an ancestor.
        """
        return self.once(WorkloadTree._claim_of, pid)

    def part_of(self, pid: int) -> str:
        """What ``pid`` itself is in its stack; empty when nothing is known of it."""
        claim = self.claims.get(pid)
        return claim.part if claim else ""

    def has_stack(self, stack: Stack) -> bool:
        """Some member belongs to this stack."""
        return any(claim.stack is stack for claim in self.claims.values())


@dataclass(frozen=True)
class ListenerContext:
    """One listener of a workload. ``owner`` is the owner nearest to the root."""

    listener: Listener
    owner: int
    owners: tuple[int, ...]
    tree: WorkloadTree

    @property
    def process(self) -> Process:
        """The main owner."""
        return self.tree.processes[self.owner]

    @property
    def part(self) -> str:
        """What the main owner is in its stack."""
        return self.tree.part_of(self.owner)

    @property
    def siblings(self) -> tuple[Listener, ...]:
        """All listeners of the main owner, oldest first."""
        return self.tree.listeners[self.owner]

    @property
    def queue_cap(self) -> int:
        """The longest accept queue seen in the listener's namespace; 0: none seen."""
        return self.tree.queue_caps.get(self.listener.namespace, 0)

    @property
    def is_unix(self) -> bool:
        """A unix socket: shown, never walled."""
        return self.listener.proto is Proto.UNIX


@dataclass(frozen=True)
class StackRules:
    """One stack: how to know it, what to call it, what its listeners are for.

    ``claim`` looks at one process, ``claim_by_listeners`` at one that no stack claimed and at
    what it listens on. ``label`` always answers; the role is ``unknown`` when it knows no
    better. ``name`` is short, for people, and holds no secret. ``words`` are the executables,
    scripts and packages of the stack: a process without environment, threads or title that we
    know is looked at only if its command line holds one.
    """

    stack: Stack
    claim: Callable[[Candidate], Claim | None]
    label: Callable[[ListenerContext], Label]
    name: Callable[[WorkloadTree], str]
    words: frozenset[str] = frozenset()
    claim_by_listeners: Callable[[Candidate, Sequence[Listener]], Claim | None] | None = None


def label(role: Role, confidence: float, *evidence: tuple[str, str]) -> Label:
    """A label from pairs of evidence kind and detail."""
    return Label(role, confidence, tuple(Evidence(kind, detail) for kind, detail in evidence))


def unknown(context: ListenerContext) -> Label:
    """Nothing tells what it is for: internal."""
    if context.is_unix:
        return label(Role.UNIX, 0.9, ("address", "unix socket of the workload"))
    return label(Role.UNKNOWN, 0.3, ("tree", "opened by a process of the workload"))
