"""The types that all stacks share: their rules, their claims, and what the rules may read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

from vllmwall.model import Evidence, Label, Listener, Process, Proto, RaySession, Role, Stack
from vllmwall.recognize.commandline import Command, command_of
from vllmwall.recognize.definitions import WorkloadDefinition

_Answer = TypeVar("_Answer")

_DEEPEST = 64

CHILD = "child"
"""The part of a process if only its stack is known."""


@dataclass(frozen=True)
class Claim:
    """The claim of a stack on a process.

    ``part`` is its part in the stack (``server``, ``worker``, ``raylet``…). ``launched``: its own
    command line proves it; otherwise only a title, threads or the rest of the environment do, and
    those may only close ports. ``family`` is a name that the scattered parts of one job share (a
    Ray session). ``guess``: dropped when what the process listens on speaks against it.
    ``serves``: it has an API of its own, so that a server which it starts is its inner one.
    """

    stack: Stack
    part: str
    launched: bool = False
    family: str = ""
    guess: bool = False
    serves: bool = False


@dataclass(frozen=True)
class Candidate:
    """A process that may belong to a stack, with its parsed command line.

    ``command`` is the command line at exec. ``title`` is the first word of its
    current title (comm where argv is gone). ``is_python``: the executed file is a Python
    interpreter, as far as can be seen.
    """

    process: Process
    command: Command
    title: str
    is_python: bool

    @classmethod
    def of(cls, process: Process) -> Candidate:
        """Read a process's command line."""
        command, argv = command_of(process), process.argv
        title = argv[0].partition(" ")[0] if argv and argv[0] else process.comm
        executed = process.exe.rpartition("/")[2] or command.binary
        return cls(process, command, title, executed.startswith(("python", "pypy")))

    def has_thread(self, *beginnings: str) -> bool:
        """It has a thread whose name begins like one of these."""
        return any(name.startswith(beginnings) for name in self.process.threads)

    def may_have(self, *libraries: str) -> bool:
        """It has mapped one of these libraries, or its libraries are unknown."""
        known = self.process.libraries
        return known is None or not known.isdisjoint(libraries)

    def has(self, *libraries: str) -> bool:
        """It is known to have mapped one of these libraries."""
        return self.process.libraries is not None and self.may_have(*libraries)


@dataclass(frozen=True)
class WorkloadTree:
    """One workload: everything that a label may depend on, and nothing else: `describe` in
    `vllmwall.recognize.description` judges it again only when something here changed.

    ``processes`` are the members; ``parents`` maps each to its parent; ``claims`` holds those that
    a stack claimed; ``defined`` those that a workload definition matched. ``listeners`` are by
    main owner. ``queue_caps`` is the longest accept queue seen in each network namespace:
    somaxconn, if anything there asked for more. ``routed`` are the ports that routers of its user
    send to.
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
    routed: frozenset[int] = frozenset()
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
        """``pid`` and its ancestors inside the workload, nearest first; at most `_DEEPEST`, because
        users can build trees of any depth."""
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
        """The claim on ``pid`` or on its nearest ancestor that has a part of its own.

        Such an ancestor is better evidence than the environment or an earlier pass.
        """
        return self.once(WorkloadTree._claim_of, pid)

    def part_of(self, pid: int) -> str:
        """The part of ``pid`` itself in its stack; empty: unknown."""
        claim = self.claims.get(pid)
        return claim.part if claim else ""

    def has_stack(self, stack: Stack) -> bool:
        """Some member belongs to this stack."""
        return stack in self.once(WorkloadTree._stacks, self.root)

    def _stacks(self, _: int) -> frozenset[Stack]:
        return frozenset(claim.stack for claim in self.claims.values())


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
        """The main owner's part in its stack."""
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
        """A unix socket: shown, never blocked."""
        return self.listener.proto is Proto.UNIX


@dataclass(frozen=True)
class StackRules:
    """One stack: how to recognize it, name it, and label its listeners.

    ``claim`` examines one process, ``claim_by_listeners`` an unclaimed one with its listeners.
    ``label`` always returns a label; its role is ``unknown`` without evidence. ``name`` is short,
    for people, and contains no secret. ``words`` are the executables, scripts and packages of the
    stack: a process without a known environment, thread or title is examined only if its command
    line contains one of them.
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
    """There is no evidence for a role: internal."""
    if context.is_unix:
        return label(Role.UNIX, 0.9, ("address", "unix socket of the workload"))
    return label(Role.UNKNOWN, 0.3, ("tree", "opened by a process of the workload"))
