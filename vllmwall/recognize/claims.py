"""Claims: the stack, row or definition of each process, by that process and its sockets."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial

from vllmwall.linux.cgroups import SLICE, is_within
from vllmwall.model import Listener, Node, Process, Proto, Stack
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.fingerprints import UVICORN_BACKLOG, asked
from vllmwall.recognize.front_door import WEB_LIBRARIES
from vllmwall.recognize.inputs import CLAIMING_ENV
from vllmwall.recognize.memo import Memo
from vllmwall.recognize.process_tree import outermost
from vllmwall.recognize.row_file import table
from vllmwall.recognize.rows import Row, Table
from vllmwall.recognize.stack_rules import CHILD, Candidate, Claim, StackRules
from vllmwall.recognize.transports import carries_transport, claim_by_transport

_ENOUGH = 16
_WORDS = re.compile(r"[-_./ ]")
_UNREAD = Claim(Stack.CUSTOM, "unread", launched=True)
_PYTHONS = ("python", "pypy")


@dataclass(frozen=True)
class Known:
    """What is known beforehand: the rules of stacks, and what the operator configured."""

    stacks: Sequence[StackRules]
    definitions: Sequence[WorkloadDefinition] = ()
    rows: tuple[Row, ...] = ()

    @property
    def table(self) -> Table:
        """The rows of the operator, then ours."""
        return table(self.rows)


def is_claimed_alone(process: Process, known: Known) -> bool:
    """Whether a stack, a row or a definition claims a process, judged by that process alone."""
    alone = {process.pid: process}
    return bool(claims_of(alone, defined_in(alone, known.definitions), known, [], Memo()))


def defined_in(
    processes: Mapping[int, Process], definitions: Sequence[WorkloadDefinition]
) -> dict[int, tuple[WorkloadDefinition, ...]]:
    """The processes that a definition of the configuration matches."""
    if not definitions:
        return {}
    matches = (
        (pid, tuple(one for one in definitions if one.match.fits(process)))
        for pid, process in processes.items()
    )
    return {pid: found for pid, found in matches if found}


def claims_of(
    processes: Mapping[int, Process],
    defined: Mapping[int, tuple[WorkloadDefinition, ...]],
    known: Known,
    problems: list[str],
    memo: Memo,
) -> dict[int, Claim]:
    """The claims of all processes. One that cannot be judged, for whatever reason, is claimed: that
    costs it alone."""
    claims = {pid: Claim(Stack.CUSTOM, "defined", launched=True) for pid in defined}
    rows = known.table
    words = frozenset(_first_word(word) for rules in known.stacks for word in rules.words)
    words |= rows.words
    for pid, process in processes.items():
        memo.pause()
        if process.mixed_ids:
            continue
        judge = partial(_claim_or_problem, process, words, known.stacks, rows, memo)
        claim, problem = memo.claims.answer(pid, process, judge)
        if problem:
            problems.append(problem)
        if claim is not None:
            claims[pid] = claim
        elif process.unread:
            claims.setdefault(pid, _UNREAD)
    _drop_strangers(claims, processes, rows)
    return claims


def _claim_or_problem(
    process: Process,
    words: frozenset[str],
    stacks: Sequence[StackRules],
    rows: Table,
    memo: Memo,
) -> tuple[Claim | None, str]:
    try:
        if _is_worth_a_look(process, words) or rows.may_know(process):
            return _claim(memo.candidate(process), stacks, rows), ""
    except Exception as error:
        return _UNREAD, problem_of(process, error)
    return None, ""


def _drop_strangers(
    claims: dict[int, Claim], processes: Mapping[int, Process], known: Table
) -> None:
    """Drop the claims on general software where its user or root runs nothing of the stack beside
    it: anybody can start a program that looks like one."""
    rows = ((pid, known.row(claim)) for pid, claim in claims.items())
    general = {pid for pid, row in rows if row is not None and row.beside}
    others = ((claim, processes[pid]) for pid, claim in claims.items() if pid not in general)
    homes = {(claim.stack, one.namespace, one.uid) for claim, one in others}
    for pid in general:
        stack, one = claims[pid].stack, processes[pid]
        if homes.isdisjoint((stack, one.namespace, uid) for uid in (0, one.uid)):
            del claims[pid]


def problem_of(process: Process, error: Exception) -> str:
    """A process that cannot be judged, in words."""
    return (
        f"process {process.pid} of user {process.uid} cannot be judged: "
        f"{type(error).__name__}. Its ports are closed"
    )


def _is_worth_a_look(process: Process, words: frozenset[str]) -> bool:
    """A cheap test that rules out nearly all processes of a busy node."""
    if process.threads or process.libraries or process.remembered:
        return True
    if not CLAIMING_ENV.isdisjoint(process.env):
        return True
    argv, comm = process.started_as, process.comm
    title = process.argv[0] if process.argv else comm
    if "::" in title or "::" in comm or _first_word(comm) in words:
        return True
    program = argv[0].rpartition("/")[2] if argv else comm
    if not program.startswith(_PYTHONS) and not process.exe.rpartition("/")[2].startswith(_PYTHONS):
        return _first_word(program) in words
    return not words.isdisjoint(_WORDS.split(" ".join(("", *argv[1:_ENOUGH])).replace(" -m", " ")))


@lru_cache(maxsize=4096)
def _first_word(name: str) -> str:
    return _WORDS.split(name.lstrip("."), 1)[0]


def _claim(candidate: Candidate, stacks: Sequence[StackRules], rows: Table) -> Claim | None:
    if (found := rows.claim(candidate)) is not None:
        return found
    for rules in stacks:
        if (claim := rules.claim(candidate)) is not None:
            return claim
    return _remembered(candidate)


def _remembered(candidate: Candidate) -> Claim | None:
    """What it was in an earlier pass, unless what is read now says otherwise. A child that its
    root left behind may show nothing any more."""
    process = candidate.process
    if process.remembered is None:
        return None
    unread = process.libraries is None and not process.threads
    if unread or carries_transport(process) or _is_orphan(candidate):
        return Claim(process.remembered, CHILD)
    return None


def _is_orphan(candidate: Candidate) -> bool:
    """Its first parent is gone, and it is no web server or companion by its command line."""
    process = candidate.process
    if process.birth_ppid in (None, process.ppid):
        return False
    return not table().is_companion(candidate) and table().web_server(candidate) is None


def drop_guesses(claims: dict[int, Claim], node: Node) -> None:
    """Drop the guesses about processes whose every listener is a web server's."""
    guessed = {pid for pid, claim in claims.items() if claim.guess}
    opened: dict[int, list[Listener]] = {}
    for listener in node.listeners:
        if listener.proto is Proto.TCP and not listener.is_loopback:
            for pid in guessed.intersection(listener.pids):
                opened.setdefault(pid, []).append(listener)
    for pid, found in opened.items():
        parses_http = Candidate.of(node.processes[pid]).has(*WEB_LIBRARIES)
        if parses_http or all(asked(one, UVICORN_BACKLOG) for one in found):
            del claims[pid]


def claims_by_listeners(
    node: Node,
    parents: Mapping[int, int],
    claims: Mapping[int, Claim],
    judge: Callable[[Process, tuple[Listener, ...]], Claim | None],
) -> dict[int, Claim]:
    """Claims on owners that no stack claimed, by their listeners."""
    opened: dict[int, list[Listener]] = {}
    for listener in node.listeners:
        for pid in listener.pids:
            if pid in node.processes and pid not in claims and not node.processes[pid].mixed_ids:
                opened.setdefault(pid, []).append(listener)
    found = {}
    for pid in outermost(opened, parents, claims):
        claim = judge(node.processes[pid], tuple(opened[pid]))
        if claim is not None:
            found[pid] = claim
    return found


def claim_of_owner(
    stacks: Sequence[StackRules],
    caps: Mapping[int, int],
    memo: Memo,
    process: Process,
    listeners: tuple[Listener, ...],
) -> Claim | None:
    """The claim on one owner. ``caps``: the longest queue of each network namespace."""

    def claim() -> Claim | None:
        candidate = memo.candidate(process)
        by_stack = _claim_by_listeners(candidate, listeners, stacks)
        return by_stack or claim_by_transport(candidate, listeners, caps)

    memo.pause()
    its_caps = {one.namespace: caps.get(one.namespace, 0) for one in listeners}
    return memo.claims_by_listeners.answer(process.pid, (process, listeners, its_caps), claim)


def _claim_by_listeners(
    candidate: Candidate, listeners: Sequence[Listener], stacks: Sequence[StackRules]
) -> Claim | None:
    if is_within(candidate.process.cgroup, SLICE):
        return Claim(
            Stack.CUSTOM, "job", launched=True
        )  # started by `vllmwall run`, or moved there by the operator
    for rules in stacks:
        if rules.claim_by_listeners is not None:
            claim = rules.claim_by_listeners(candidate, listeners)
            if claim is not None:
                return claim
    return None
