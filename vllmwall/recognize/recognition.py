"""The steps of a recognition: claim processes, group them, assign listeners, label them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Node,
    Process,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.recognize.claims import (
    Known,
    claims_by_listeners,
    claims_of,
    defined_in,
    drop_guesses,
    problem_of,
)
from vllmwall.recognize.custom import defined_label
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.fingerprints import library_label
from vllmwall.recognize.forwarders import with_forwarded
from vllmwall.recognize.front_door import front_label
from vllmwall.recognize.left_out import with_left_out
from vllmwall.recognize.ownership import Owned, inherited, owned_by
from vllmwall.recognize.process_tree import front_ends, group, masters, parents_of
from vllmwall.recognize.relays import with_relays
from vllmwall.recognize.rows import ROWS, Table, ports_in
from vllmwall.recognize.stack_rules import (
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)


def recognize_node(node: Node, known: Known) -> Recognition:
    """Recognize a node by what is known."""
    stacks = known.stacks
    parents = parents_of(node.processes)
    defined = defined_in(node.processes, known.definitions)
    problems: list[str] = []
    claims = claims_of(node.processes, defined, known, problems)
    caps = _queue_caps(node.listeners)
    drop_guesses(claims, node)
    claims.update(front_ends(node.processes, parents, claims))
    claims.update(masters(node, parents, claims))
    claims.update(claims_by_listeners(node, parents, claims, stacks, caps))
    members = group(node, parents, claims)
    owned = owned_by(node, parents, members)
    rules = {one.stack: one for one in stacks}
    routed = _routed(node.processes, claims)
    view = _View(node, parents, claims, defined, rules, caps, routed, problems, known.table)
    found = with_left_out(_describe(view, members, owned), node.left_out)
    found = with_relays(with_forwarded(found, node.processes, defined), node)
    return replace(found, problems=tuple(dict.fromkeys(problems)))


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
        view.problems.append(problem_of(root, error))
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
        view.problems.append(problem_of(context.process, error))
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
