"""The process tree: parents, ancestors, and the groups of claimed processes that are workloads.

A workload's root is a claimed process, its members are the descendants. Ancestors are not members:
the shell, session or service manager that started it has other children too. All lookups start at
claimed processes, so that thousands of other processes cost nothing.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Container, Iterable, Iterator, Mapping, Sequence

from vllmwall.model import Listener, Node, Process, Proto
from vllmwall.recognize.fingerprints import TORCH_THREADS
from vllmwall.recognize.front_door import serves_on_its_own
from vllmwall.recognize.memo import Memo
from vllmwall.recognize.row_file import table
from vllmwall.recognize.stack_rules import CHILD, Candidate, Claim
from vllmwall.recognize.transports import carries_transport

_MOST_STEPS = 3
_SHELLS = frozenset(
    {"bash", "sh", "dash", "zsh", "ash", "busybox", "fish", "timeout", "tini", "dumb-init", "env"}
    | {"catatonit", "s6-supervise", "runsv", "su", "sudo", "uv", "conda", "xargs", "tmux", "screen"}
)


def parents_of(processes: Mapping[int, Process]) -> dict[int, int]:
    """Each process's parent: the first one that it had, where that is still valid."""
    return {pid: _parent(process, processes) for pid, process in processes.items()}


def _parent(process: Process, processes: Mapping[int, Process]) -> int:
    """A process whose parent died has another one now. Its pid may have been reused since: by a
    process that is younger than the child, and so cannot be its parent."""
    birth = process.birth_ppid
    if birth is None or birth == process.ppid:
        return process.ppid
    older = processes.get(birth)
    if older is None or (older.alive and older.start_time > process.start_time):
        return process.ppid
    return birth


def ancestors(pid: int, parents: Mapping[int, int]) -> Iterator[int]:
    """The ancestors of a process, nearest first. Survives circles: observation can race."""
    seen = {pid}
    parent = parents.get(pid)
    while parent is not None and parent not in seen:
        seen.add(parent)
        yield parent
        parent = parents.get(parent)


class Ancestry:
    """Which processes are above which others, and how deep each is.

    Each process is climbed over once and each question costs little, so that a user who
    builds a very deep tree whose processes share their sockets does not slow us down.
    """

    def __init__(self, pids: Iterable[int], parents: Mapping[int, int]) -> None:
        self._begin: dict[int, int] = {}
        self._end: dict[int, int] = {}
        self._depth: dict[int, int] = {}
        below: dict[int, list[int]] = {}
        climbed: set[int] = set()
        for top in [top for pid in pids for top in _climbed(pid, parents, climbed, below)]:
            self._number(top, below)

    def _number(self, top: int, below: Mapping[int, list[int]]) -> None:
        """Number a tree in depth-first order: all that is below a process follows it."""
        waiting, depth = [(top, 0)], self._depth
        while waiting:
            pid, level = waiting.pop()
            if level < 0:
                self._end[pid] = len(depth)
            elif pid not in depth:
                self._begin[pid], depth[pid] = len(depth), level
                waiting.append((pid, -1))
                waiting += [(child, level + 1) for child in below.get(pid, ())]

    def depth(self, pid: int) -> int:
        """The number of ancestors of one of the pids."""
        return self._depth[pid]

    def in_order(self, pids: Iterable[int]) -> list[int]:
        """Those of the pids that are known, for `first_below`."""
        return sorted((pid for pid in pids if pid in self._begin), key=self._begin.__getitem__)

    def first_below(self, pid: int, ordered: Sequence[int]) -> int | None:
        """One of ``ordered`` that has ``pid`` above it; None: there is none."""
        if pid not in self._begin:
            return None
        place = bisect_right(ordered, self._begin[pid], key=self._begin.__getitem__)
        found = ordered[place] if place < len(ordered) else None
        return found if found is not None and self._begin[found] < self._end[pid] else None


def _climbed(
    pid: int, parents: Mapping[int, int], climbed: set[int], below: dict[int, list[int]]
) -> Iterator[int]:
    """Note the way up from a process as far as it is new; the top, where that is new too. In a
    circle that is the process itself."""
    path: set[int] = set()
    while pid not in climbed:
        climbed.add(pid)
        path.add(pid)
        parent = parents.get(pid)
        if parent is None or parent in path:
            yield pid
            return
        below.setdefault(parent, []).append(pid)
        pid = parent


def outermost(pids: Iterable[int], parents: Mapping[int, int], claims: Container[int]) -> set[int]:
    """Those of the pids that have no claimed ancestor. Each process is climbed over once, so
    that a user who builds a very deep tree does not slow us down."""
    below: dict[int, bool] = {}
    return {pid for pid in pids if not _is_below(pid, parents, claims, below)}


def _is_below(
    pid: int, parents: Mapping[int, int], claims: Container[int], below: dict[int, bool]
) -> bool:
    path: dict[int, None] = {}
    found, at = False, pid
    while not found and at not in path and at in parents:
        path[at] = None
        at = parents[at]
        found = at in claims or below.get(at, False)
        if at in below:
            break
    below.update(dict.fromkeys(path, found))
    return found


def front_ends(
    processes: Mapping[int, Process], parents: Mapping[int, int], claims: Mapping[int, Claim]
) -> dict[int, Claim]:
    """The unclaimed Python programs in whose name claimed children run: an offline ``LLM()``.

    Only children that no command line explains have one. No user may pull another user's
    process, a shell, an init or a service manager into a workload by naming a process like one of
    its children: same user, Python, and signs that it forks such children itself.
    """
    found: dict[int, Claim] = {}
    for pid in outermost(claims, parents, claims):
        claim = claims[pid]
        if not claim.launched or claim.part in ("gcs", "raylet"):
            for front in _front_end(pid, processes, parents):
                found[front] = Claim(claim.stack, "front", family=claim.family)
    return found


def _front_end(
    pid: int, processes: Mapping[int, Process], parents: Mapping[int, int]
) -> Iterator[int]:
    """The parent, and where that is multiprocessing's own fork server, its parent too."""
    child = Candidate.of(processes[pid])
    for _ in range(_MOST_STEPS):
        parent = processes.get(parents[child.process.pid])
        if parent is None or not _could_have_started(child, front := Candidate.of(parent)):
            return
        yield parent.pid
        if "multiprocessing" not in front.command.code:
            return
        child = front


def _could_have_started(child: Candidate, parent: Candidate) -> bool:
    if parent.process.uid != child.process.uid or not parent.is_python:
        return False
    if parent.process.mixed_ids or child.process.mixed_ids:
        return False
    if "multiprocessing" in child.command.code or _was_forked(child, parent):
        return True
    if child.command.module or child.command.script:
        return False  # a program of its own: a supervisor or a shell starts such too
    if parent.process.threads or parent.process.libraries is not None:
        return parent.has_thread("ZMQbg/", "worker.io", *TORCH_THREADS) or parent.has(
            "vllm", "ray", "sglang"
        )
    return child.command.binary in ("gcs_server", "raylet")


def _was_forked(child: Candidate, parent: Candidate) -> bool:
    """Forked and not executed since: the command line of the parent under a title."""
    started = child.process.exec_argv
    return started is not None and started == parent.process.started_as


def masters(
    node: Node, parents: Mapping[int, int], claims: Mapping[int, Claim]
) -> dict[int, Claim]:
    """The unclaimed Python programs that opened a socket which claimed children serve: the master
    of gunicorn, of uvicorn's or hypercorn's workers, circus.

    A child that is a program of its own and was proven by its command line keeps to itself: who
    started it may have let a socket of another service leak.
    """
    shared = [one.pids for one in node.listeners if len(one.pids) > 1]
    ancestry = Ancestry({pid for pids in shared for pid in pids}, parents)
    found: dict[int, Claim] = {}
    for pids in shared:
        served: dict[int, list[int]] = {}
        for pid in pids:
            claim = claims.get(pid)
            if claim is not None and (not claim.launched or claim.part.startswith("front")):
                served.setdefault(node.processes[pid].uid, []).append(pid)
        ordered = {uid: ancestry.in_order(those) for uid, those in served.items()}
        for above in pids if served else ():
            if above in claims or above not in node.processes:
                continue
            master = node.processes[above]
            child = ancestry.first_below(above, ordered.get(master.uid, ()))
            if child is not None and not master.mixed_ids and Candidate.of(master).is_python:
                claim = claims[child]
                found[above] = Claim(claim.stack, "front/master", family=claim.family)
    return found


def group(
    node: Node, parents: Mapping[int, int], claims: Mapping[int, Claim], memo: Memo
) -> dict[int, int]:
    """Every member of every workload, and the root that it belongs to."""
    roots = _joined(outermost(claims, parents, claims), node.processes, claims)
    children: dict[int, list[int]] = {}
    for pid, parent in parents.items():
        children.setdefault(parent, []).append(pid)
    kept: set[int] = set()
    for pid in claims:
        deque(_climbed(pid, parents, kept, {}), maxlen=0)
    companions = _Companions(node, claims, kept, memo)
    members: dict[int, int] = {}
    for top, root in roots.items():
        waiting = [top]
        while waiting:
            pid = waiting.pop()
            memo.pause()
            members[pid] = root
            below = (one for one in children.get(pid, ()) if one not in members)
            waiting.extend(
                one
                for one in below
                if _is_inherited(node.processes[pid], node.processes[one])
                and not companions.has(one, pid)
            )
    return _with_living_roots(members, node.processes, claims)


class _Companions:
    """Programs beside the job in its tree: Gradio, TensorBoard, a notebook, an exporter.

    They were started as programs of their own, carry no transport, and are known companions or
    web servers that a shell started. What a rank or an engine started itself is a part of the job.
    """

    def __init__(self, node: Node, claims: Mapping[int, Claim], kept: set[int], memo: Memo) -> None:
        self._processes, self._claims, self._kept = node.processes, claims, kept
        self._candidate = memo.candidate
        self._listening: dict[int, list[Listener]] = {}
        for listener in node.listeners:
            if listener.proto is Proto.TCP:
                for pid in listener.pids:
                    self._listening.setdefault(pid, []).append(listener)

    def has(self, pid: int, parent: int) -> bool:
        """Whether a child of a member is a companion."""
        process, claim = self._processes[pid], self._claims.get(parent)
        if pid in self._kept or process.libraries is None or carries_transport(process):
            return False
        if claim is not None and claim.part in ("rank", "engine", "worker", "raylet", "gcs"):
            return False
        candidate = self._candidate(process)
        command = candidate.command
        if candidate.process.started_as == self._processes[parent].started_as or command.code:
            return False
        if table().is_companion(candidate):
            return True
        in_shell = self._processes[parent].exe.rpartition("/")[2] in _SHELLS
        return in_shell and any(
            serves_on_its_own(candidate, listener) for listener in self._listening.get(pid, ())
        )


def _is_inherited(parent: Process, child: Process) -> bool:
    """Whether a member's child is one too. Not where the parent's user could not have started it
    but by a setuid program (sudo, su): what that runs belongs to another user, who said nothing."""
    return not child.mixed_ids and (child.uid != 0 or parent.uid == 0)


def _joined(
    tops: set[int], processes: Mapping[int, Process], claims: Mapping[int, Claim]
) -> dict[int, int]:
    """Trees that are parts of one job: of one Ray session, or orphans of one dead parent."""
    roots: dict[int, int] = {}
    first: dict[tuple[object, ...], int] = {}
    for pid in sorted(tops, key=lambda one: _rank(processes[one], claims[one])):
        key = _family_key(processes[pid], claims[pid], processes)
        roots[pid] = first.setdefault(key, pid) if key else pid
    return roots


def _rank(process: Process, claim: Claim) -> tuple[bool, int, int]:
    """The order of candidates for root: those with a part of their own, then the oldest."""
    return claim.part == CHILD, process.start_time, process.pid


def _family_key(
    process: Process, claim: Claim, processes: Mapping[int, Process]
) -> tuple[object, ...] | None:
    place = (claim.stack, process.uid, process.namespace)
    if claim.family:
        return (*place, claim.family)
    birth = process.birth_ppid or 0
    is_orphan = birth > 1 and birth != process.ppid and birth not in processes
    return (*place, birth) if is_orphan and not claim.launched else None


def _with_living_roots(
    members: dict[int, int], processes: Mapping[int, Process], claims: Mapping[int, Claim]
) -> dict[int, int]:
    """Replace a dead root by its oldest living claimed member: an engine rather than a resource
    tracker."""
    stand_ins: dict[int, int] = {}
    living = [pid for pid in members if processes[pid].alive and pid in claims]
    for pid in sorted(living, key=lambda one: _rank(processes[one], claims[one])):
        stand_ins.setdefault(members[pid], pid)
    return {
        pid: root if processes[root].alive else stand_ins.get(root, root)
        for pid, root in members.items()
    }
