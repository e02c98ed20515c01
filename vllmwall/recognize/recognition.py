"""The steps of a recognition: claim processes, group them, assign listeners, label them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from vllmwall.linux.cgroups import SLICE, is_within
from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Node,
    Process,
    Proto,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.recognize.custom import defined_label
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.fingerprints import UVICORN_BACKLOG, asked, library_label
from vllmwall.recognize.forwarders import with_forwarded
from vllmwall.recognize.front_door import WEB_LIBRARIES, front_label
from vllmwall.recognize.inputs import CLAIMING_ENV
from vllmwall.recognize.left_out import with_left_out
from vllmwall.recognize.ownership import Owned, inherited, owned_by
from vllmwall.recognize.process_tree import front_ends, group, masters, outermost, parents_of
from vllmwall.recognize.relays import with_relays
from vllmwall.recognize.row_file import table
from vllmwall.recognize.rows import ROWS, Row, Table, ports_in
from vllmwall.recognize.stack_rules import (
    CHILD,
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)
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


def recognize_node(node: Node, known: Known) -> Recognition:
    """Recognize a node by what is known."""
    stacks = known.stacks
    parents = parents_of(node.processes)
    defined = _defined(node.processes, known.definitions)
    problems: list[str] = []
    claims = _claims(node.processes, defined, known, problems)
    caps = _queue_caps(node.listeners)
    _drop_guesses(claims, node)
    claims.update(front_ends(node.processes, parents, claims))
    claims.update(masters(node, parents, claims))
    claims.update(_claims_by_listeners(node, parents, claims, stacks, caps))
    members = group(node, parents, claims)
    owned = owned_by(node, parents, members)
    rules = {one.stack: one for one in stacks}
    routed = _routed(node.processes, claims)
    view = _View(node, parents, claims, defined, rules, caps, routed, problems, known.table)
    found = with_left_out(_describe(view, members, owned), node.left_out)
    found = with_relays(with_forwarded(found, node.processes, defined), node)
    return replace(found, problems=tuple(dict.fromkeys(problems)))


def is_claimed_alone(process: Process, known: Known) -> bool:
    """Whether a stack, a row or a definition claims a process, judged by that process alone."""
    alone = {process.pid: process}
    return bool(_claims(alone, _defined(alone, known.definitions), known, []))


def _defined(
    processes: Mapping[int, Process], definitions: Sequence[WorkloadDefinition]
) -> dict[int, tuple[WorkloadDefinition, ...]]:
    if not definitions:
        return {}
    matches = (
        (pid, tuple(one for one in definitions if one.match.fits(process)))
        for pid, process in processes.items()
    )
    return {pid: found for pid, found in matches if found}


def _claims(
    processes: Mapping[int, Process],
    defined: Mapping[int, tuple[WorkloadDefinition, ...]],
    known: Known,
    problems: list[str],
) -> dict[int, Claim]:
    """A process that cannot be judged, for whatever reason, is claimed: that costs it alone."""
    claims = {pid: Claim(Stack.CUSTOM, "defined", launched=True) for pid in defined}
    rows = known.table
    words = frozenset(_first_word(word) for rules in known.stacks for word in rules.words)
    words |= rows.words
    for pid, process in processes.items():
        if process.mixed_ids:
            continue
        claim = None
        try:
            if _is_worth_a_look(process, words) or rows.may_know(process):
                claim = _claim(Candidate.of(process), known.stacks, rows)
        except Exception as error:
            problems.append(_problem(process, error))
            claim = _UNREAD
        if claim is not None:
            claims[pid] = claim
        elif process.unread:
            claims.setdefault(pid, _UNREAD)
    _drop_strangers(claims, processes, rows)
    return claims


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


def _problem(process: Process, error: Exception) -> str:
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


def _drop_guesses(claims: dict[int, Claim], node: Node) -> None:
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


def _claims_by_listeners(
    node: Node,
    parents: Mapping[int, int],
    claims: Mapping[int, Claim],
    stacks: Sequence[StackRules],
    caps: Mapping[int, int],
) -> dict[int, Claim]:
    """Claims on owners that no stack claimed, by their listeners."""
    opened: dict[int, list[Listener]] = {}
    for listener in node.listeners:
        for pid in listener.pids:
            if pid in node.processes and pid not in claims and not node.processes[pid].mixed_ids:
                opened.setdefault(pid, []).append(listener)
    found = {}
    for pid in outermost(opened, parents, claims):
        candidate = Candidate.of(node.processes[pid])
        claim = _claim_by_listeners(candidate, opened[pid], stacks)
        claim = claim or claim_by_transport(candidate, opened[pid], caps)
        if claim is not None:
            found[pid] = claim
    return found


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


@dataclass(frozen=True)
class _View:
    """The facts that all workloads of the node share."""

    node: Node
    parents: Mapping[int, int]
    claims: Mapping[int, Claim]
    defined: Mapping[int, tuple[WorkloadDefinition, ...]]
    rules: Mapping[Stack, StackRules]
    queue_caps: Mapping[int, int]
    routed: Mapping[int, frozenset[int]]
    problems: list[str]
    table: Table

    def tree(self, root: int, members: frozenset[int], finds: Sequence[Owned]) -> WorkloadTree:
        """One workload of it."""
        return WorkloadTree(
            root=root,
            processes=self.node.processes,
            parents=self.parents,
            claims={pid: self.claims[pid] for pid in members if pid in self.claims},
            members=members,
            listeners=_by_owner(finds, root),
            queue_caps=self.queue_caps,
            defined=self.defined,
            ray_sessions=self.node.ray_sessions,
            routed=self.routed.get(self.node.processes[root].uid, frozenset()),
        )


def _describe(
    view: _View, members: Mapping[int, int], owned: Sequence[Owned | Listener]
) -> Recognition:
    trees: dict[int, set[int]] = {}
    for pid, root in members.items():
        trees.setdefault(root, set()).add(pid)
    finds: dict[int, list[Owned]] = {root: [] for root in trees}
    for one in owned:
        if isinstance(one, Owned):
            finds[one.root].append(one)
    workloads = (
        _workload(view.tree(root, frozenset(pids), finds[root]), finds[root], view)
        for root, pids in sorted(trees.items())
    )
    others = tuple(one for one in owned if isinstance(one, Listener))
    return Recognition(tuple(workloads), others, tuple(_inherited(view, members, others)))


def _inherited(
    view: _View, members: Mapping[int, int], others: Iterable[Listener]
) -> Iterator[tuple[WorkloadId, Listener, str]]:
    processes = view.node.processes
    for one in others:
        if found := inherited(one, processes, members):
            root, by = found
            yield WorkloadId(root, processes[root].start_time), one, by


def _queue_caps(listeners: Iterable[Listener]) -> dict[int, int]:
    caps: dict[int, int] = {}
    for one in listeners:
        caps[one.namespace] = max(caps.get(one.namespace, 0), one.queue_limit or 0)
    return caps


def _routed(
    processes: Mapping[int, Process], claims: Mapping[int, Claim]
) -> Mapping[int, frozenset[int]]:
    """The ports of the servers that the command lines of each user's routers name."""
    found: dict[int, frozenset[int]] = {}
    for pid, claim in claims.items():
        if claim.part == "router":
            process = processes[pid]
            ports = (
                port for word in process.started_as if "://" in word for port in ports_in(word)
            )
            found[process.uid] = found.get(process.uid, frozenset()).union(ports)
    return found


def _by_owner(finds: Iterable[Owned], root: int) -> dict[int, tuple[Listener, ...]]:
    """The listeners of each main owner, oldest first; those without one as if the root's."""
    opened: dict[int, list[Listener]] = {}
    for one in finds:
        opened.setdefault((*one.owners, root)[0], []).append(one.listener)
    return {pid: tuple(sorted(all_, key=lambda one: one.order)) for pid, all_ in opened.items()}


def _workload(tree: WorkloadTree, finds: Sequence[Owned], view: _View) -> Workload:
    root, stack = tree.processes[tree.root], tree.claims[tree.root].stack
    try:
        name = view.rules.get(stack, ROWS).name(tree)
    except Exception as error:
        name = ""
        view.problems.append(_problem(root, error))
    return Workload(
        id=WorkloadId(root.pid, root.start_time),
        stack=stack,
        name=name or stack.value,
        pids=tree.members,
        listeners=tuple(LabelledListener(one.listener, _label(tree, one, view)) for one in finds),
        uid=root.uid,
        cgroup=root.cgroup,
    )


def _label(tree: WorkloadTree, find: Owned, view: _View) -> Label:
    """By the rules of the stack that the owner belongs to, which may differ from the root's.

    Where no owner was seen there is no evidence for ``api``.
    """
    context = ListenerContext(find.listener, (*find.owners, tree.root)[0], find.owners, tree)
    try:
        return _judged(context, view)
    except Exception as error:
        view.problems.append(_problem(context.process, error))
        return unknown(context)


def _judged(context: ListenerContext, view: _View) -> Label:
    tree = context.tree
    if not context.owners:
        return library_label(context) or unknown(context)
    if tree.defined and (defined := defined_label(context)) is not None:
        return defined
    found = view.table.label(context)
    if found is None:
        found = view.rules.get(tree.claim_of(context.owner).stack, ROWS).label(context)
        if found.role in (Role.UNKNOWN, Role.ZMQ):  # ZMQ's queue of 100 is asyncio's too
            found = front_label(context) or found
        elif all(one.kind == "default-port" for one in found.evidence):
            front = front_label(context)  # what the operator named outweighs another's default
            found = front if front and front.role is Role.API else found
    return _unread(context) or found if found.role is Role.API else found


def _unread(context: ListenerContext) -> Label | None:
    """Nothing is an API while something that its process says is not known."""
    for pid in context.tree.line(context.owner):
        process = context.tree.processes[pid]
        if why := process.unread or process.settings_unread:
            return label(Role.UNKNOWN, 0.3, ("unread", why))
    return None
