"""The workloads of a node: what each is called, and what each of its listeners is for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from vllmwall.model import (
    Label,
    LabelledListener,
    Listener,
    Node,
    Recognition,
    Role,
    Stack,
    Workload,
    WorkloadId,
)
from vllmwall.recognize.claims import problem_of
from vllmwall.recognize.custom import defined_label
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.fingerprints import library_label
from vllmwall.recognize.front_door import front_label
from vllmwall.recognize.memo import Memo
from vllmwall.recognize.ownership import Owned, inherited
from vllmwall.recognize.rows import ROWS, Table
from vllmwall.recognize.stack_rules import (
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)


@dataclass(frozen=True)
class View:
    """The facts that all workloads of the node share."""

    node: Node
    parents: Mapping[int, int]
    claims: Mapping[int, Claim]
    defined: Mapping[int, tuple[WorkloadDefinition, ...]]
    rules: Mapping[Stack, StackRules]
    queue_caps: Mapping[int, int]
    routed: Mapping[int, frozenset[int]]
    table: Table
    memo: Memo
    problems: list[str]

    def tree(self, root: int, members: frozenset[int], finds: Sequence[Owned]) -> WorkloadTree:
        """One workload of it, and nothing of the others."""
        processes, spaces = self.node.processes, {one.listener.namespace for one in finds}
        return WorkloadTree(
            root=root,
            processes={pid: processes[pid] for pid in members},
            parents={pid: self.parents[pid] for pid in members},
            claims={pid: self.claims[pid] for pid in members if pid in self.claims},
            members=members,
            listeners=_by_owner(finds, root),
            queue_caps={inode: self.queue_caps[inode] for inode in spaces},
            defined={pid: self.defined[pid] for pid in members if pid in self.defined},
            ray_sessions=self.node.ray_sessions,
            routed=self.routed.get(processes[root].uid, frozenset()),
        )


def describe(
    view: View, members: Mapping[int, int], owned: Sequence[Owned | Listener]
) -> Recognition:
    """The workloads by their members' roots, and the listeners of none of them."""
    trees: dict[int, set[int]] = {}
    for pid, root in members.items():
        trees.setdefault(root, set()).add(pid)
    finds: dict[int, list[Owned]] = {root: [] for root in trees}
    for one in owned:
        if isinstance(one, Owned):
            finds[one.root].append(one)
    workloads = tuple(
        _known_workload(view, root, frozenset(pids), finds[root])
        for root, pids in sorted(trees.items())
    )
    others = tuple(one for one in owned if isinstance(one, Listener))
    return Recognition(workloads, others, tuple(_inherited(view, members, others)))


def _known_workload(
    view: View, root: int, members: frozenset[int], finds: Sequence[Owned]
) -> Workload:
    """A workload, judged again where anything changed that its tree shows."""
    view.memo.pause()
    tree = view.tree(root, members, finds)
    facts = (tree.processes, tree.parents, tree.claims, tree.queue_caps, tree.defined)
    shared = (tree.ray_sessions, tree.routed, tuple(finds))
    judge = partial(_workload, tree, finds, view)
    found, problems = view.memo.workloads.answer(root, (*facts, *shared), judge)
    view.problems.extend(problems)
    return found


def _inherited(
    view: View, members: Mapping[int, int], others: Iterable[Listener]
) -> Iterator[tuple[WorkloadId, Listener, str]]:
    processes = view.node.processes
    for one in others:
        if found := inherited(one, processes, members):
            root, by = found
            yield WorkloadId(root, processes[root].start_time), one, by


def _by_owner(finds: Iterable[Owned], root: int) -> dict[int, tuple[Listener, ...]]:
    """The listeners of each main owner, oldest first; those without one as if the root's."""
    opened: dict[int, list[Listener]] = {}
    for one in finds:
        opened.setdefault((*one.owners, root)[0], []).append(one.listener)
    return {pid: tuple(sorted(all_, key=lambda one: one.order)) for pid, all_ in opened.items()}


def _workload(
    tree: WorkloadTree, finds: Sequence[Owned], view: View
) -> tuple[Workload, tuple[str, ...]]:
    """A workload, and what of it could not be judged."""
    root, stack, problems = tree.processes[tree.root], tree.claims[tree.root].stack, []
    try:
        name = view.rules.get(stack, ROWS).name(tree)
    except Exception as error:
        name = ""
        problems.append(problem_of(root, error))
    labelled = []
    for one in finds:
        view.memo.pause()
        found, problem = _label(tree, one, view)
        labelled.append(LabelledListener(one.listener, found))
        problems += [problem] if problem else []
    workload = Workload(
        id=WorkloadId(root.pid, root.start_time),
        stack=stack,
        name=name or stack.value,
        pids=tree.members,
        listeners=tuple(labelled),
        uid=root.uid,
        cgroup=root.cgroup,
    )
    return workload, tuple(problems)


def _label(tree: WorkloadTree, find: Owned, view: View) -> tuple[Label, str]:
    """By the rules of the stack that the owner belongs to, which may differ from the root's.

    Where no owner was seen there is no evidence for ``api``.
    """
    context = ListenerContext(find.listener, (*find.owners, tree.root)[0], find.owners, tree)
    try:
        return _judged(context, view), ""
    except Exception as error:
        return unknown(context), problem_of(context.process, error)


def _judged(context: ListenerContext, view: View) -> Label:
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
