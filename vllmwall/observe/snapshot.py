"""Nodes as files: live recordings of the survey, and snapshots of our own.

`load` turns either into a `Node`. Of a survey recording only what a daemon could have seen
is used, never the fields that say the answer (role, evidence, opened_by, handshake_probes).
`dump` writes a snapshot with secrets removed; recognition of it is the same. Imports nothing of
ours but the model, the inputs and the redaction.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from ipaddress import ip_address
from pathlib import Path
from typing import TypedDict, cast

from vllmwall.model import Listener, Node, Process, Proto, RaySession, Stack
from vllmwall.observe.redaction import redacted
from vllmwall.recognize.inputs import ENV_KEYS

FORMAT = "vllmwall-snapshot"
VERSION = 1
_TICKS = 100
_PYTHON_OR_PATH = ("/", "python", "pypy", "./")


class RecordingError(ValueError):
    """A file that is neither a recording nor a snapshot; the message names file and reason."""


class _Moment(TypedDict):
    t: float
    comm: str
    cmdline: str
    ppid: int


class _SurveyProcess(TypedDict):
    pid: int
    ppid: int
    comm: str
    cmdline: list[str]
    env_of_interest: dict[str, str]
    exe: str
    uid: int
    ns: str
    first_seen: float
    history: list[_Moment]
    threads: dict[str, int] | None
    cgroup: str


class _SurveySocket(TypedDict):
    proto: str
    addr: str
    port: int
    ns: str
    pids: list[int]
    comm: list[str]
    first_seen_s: float
    listen_backlog_arg: int | None
    ss_send_q: int | None


class _Survey(TypedDict):
    processes: list[_SurveyProcess]
    sockets: list[_SurveySocket]


class SnapshotProcess(TypedDict):
    """One process in a snapshot. ``libraries`` None: not known."""

    pid: int
    ppid: int
    comm: str
    argv: list[str]
    start_time: int
    exe: str
    uid: int
    namespace: int
    cgroup: str
    image: str
    env: dict[str, str]
    threads: dict[str, int]
    libraries: list[str] | None
    settings: dict[str, str]
    exec_argv: list[str] | None
    birth_ppid: int | None
    remembered: str | None
    alive: bool


class SnapshotListener(TypedDict):
    """One listener in a snapshot. ``address`` None: a unix socket."""

    namespace: int
    proto: str
    port: int
    address: str | None
    path: str
    inode: int
    uid: int
    pids: list[int]
    backlog: int | None
    queue_limit: int | None
    v6only: bool
    order: float


class Snapshot(TypedDict):
    """Our own format, version 1."""

    format: str
    version: int
    host: dict[str, str]
    processes: list[SnapshotProcess]
    listeners: list[SnapshotListener]
    ray_sessions: list[dict[str, object]]


def load(path: Path) -> Node:
    """Read a recording or a snapshot. Raises RecordingError, or OSError when unreadable."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RecordingError(f"{path}: not JSON: {error}") from None
    try:
        return read(content)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RecordingError(f"{path}: not a recording or snapshot: {error!r}") from None


def read(content: Mapping[str, object]) -> Node:
    """The node in the parsed content of a recording or a snapshot.

    Raises KeyError, TypeError, ValueError or AttributeError when it is neither.
    """
    if content.get("format") != FORMAT:
        return _from_survey(cast("_Survey", content))
    if content.get("version") != VERSION:
        raise ValueError(f"snapshot version {content.get('version')!r}; known: {VERSION}")
    return _from_snapshot(cast("Snapshot", content))


def _from_survey(survey: _Survey) -> Node:
    names = sorted({one["ns"] for one in (*survey["processes"], *survey["sockets"])})
    namespaces = {name: number for number, name in enumerate(names, 1)}
    processes = {
        one["pid"]: _survey_process(one, namespaces[one["ns"]]) for one in survey["processes"]
    }
    for stub in _stubs(survey["sockets"], namespaces, processes):
        processes.setdefault(stub.pid, stub)
    listeners = tuple(
        _survey_listener(one, namespaces[one["ns"]], inode)
        for inode, one in enumerate(survey["sockets"], 1)
    )
    return Node(processes, listeners)


def _survey_process(one: _SurveyProcess, namespace: int) -> Process:
    env = one.get("env_of_interest") or {}
    return Process(
        pid=one["pid"],
        ppid=one["ppid"],
        comm=one["comm"],
        argv=tuple(one["cmdline"] or ()),
        start_time=round((one.get("first_seen") or 0) * _TICKS),
        exe=one.get("exe") or "",
        uid=one.get("uid") or 0,
        namespace=namespace,
        cgroup=(one.get("cgroup") or "0::/").rpartition("::")[2].splitlines()[0],
        env={key: value for key, value in env.items() if key in ENV_KEYS},
        threads=one.get("threads") or {},
        exec_argv=_exec_argv(one),
        birth_ppid=_birth_ppid(one),
    )


def _exec_argv(one: _SurveyProcess) -> tuple[str, ...] | None:
    """The last command line that is one, before titles took its place.

    A recording keeps earlier ones as text: words that hold blanks come apart.
    """
    argv = tuple(one["cmdline"] or ())
    if _is_command(argv):
        return argv
    earlier = [tuple(moment["cmdline"].split()) for moment in one.get("history") or ()]
    return next((words for words in reversed(earlier) if _is_command(words)), None)


def _is_command(argv: Sequence[str]) -> bool:
    return bool(argv) and argv[0].startswith(_PYTHON_OR_PATH)


def _birth_ppid(one: _SurveyProcess) -> int | None:
    history = one.get("history")
    return history[0]["ppid"] if history else None


def _stubs(
    sockets: Sequence[_SurveySocket],
    namespaces: Mapping[str, int],
    processes: Mapping[int, Process],
) -> Iterator[Process]:
    """Owners that died before they were looked at: a pid and a name are all that is left."""
    for one in sockets:
        for pid, comm in zip(one["pids"] or (), one["comm"] or (), strict=False):
            if pid not in processes:
                namespace = namespaces[one["ns"]]
                parent = _raylet_of(namespace, processes) if comm.startswith("ray::") else 0
                yield Process(pid=pid, ppid=parent, comm=comm, namespace=namespace, alive=False)


def _raylet_of(namespace: int, processes: Mapping[int, Process]) -> int:
    """Ray's workers are children of the raylet of their node."""
    raylets = [
        one.pid for one in processes.values() if (one.comm, one.namespace) == ("raylet", namespace)
    ]
    return raylets[0] if len(raylets) == 1 else 0


def _survey_listener(one: _SurveySocket, namespace: int, inode: int) -> Listener:
    is_unix = one["proto"] == "unix"
    return Listener(
        namespace=namespace,
        proto=Proto(one["proto"].removesuffix("6")),
        port=one["port"],
        address=None if is_unix else ip_address(one["addr"]),
        path=one["addr"] if is_unix else "",
        inode=inode,
        pids=tuple(one["pids"] or ()),
        backlog=one.get("listen_backlog_arg"),
        queue_limit=one.get("ss_send_q"),
        order=one.get("first_seen_s") or 0.0,
    )


def dump(node: Node, *, host_facts: Mapping[str, str]) -> Snapshot:
    """The node as a snapshot that a stranger may read; ``host_facts`` go in as they are.

    Only values that are allowed by name and shape leave a process; all else reads
    ``<redacted>``.
    """
    clean = redacted(node)
    return Snapshot(
        format=FORMAT,
        version=VERSION,
        host=dict(host_facts),
        processes=[_dump_process(one) for one in clean.processes.values()],
        listeners=[_dump_listener(one) for one in clean.listeners],
        ray_sessions=[
            {"directory": one.directory, "ports": {key: list(p) for key, p in one.ports.items()}}
            for one in clean.ray_sessions
        ],
    )


def _dump_process(one: Process) -> SnapshotProcess:
    return SnapshotProcess(
        pid=one.pid,
        ppid=one.ppid,
        comm=one.comm,
        argv=list(one.argv),
        start_time=one.start_time,
        exe=one.exe,
        uid=one.uid,
        namespace=one.namespace,
        cgroup=one.cgroup,
        image=one.image,
        env=dict(one.env),
        threads=dict(one.threads),
        libraries=None if one.libraries is None else sorted(one.libraries),
        settings=dict(one.settings),
        exec_argv=None if one.exec_argv is None else list(one.exec_argv),
        birth_ppid=one.birth_ppid,
        remembered=one.remembered.value if one.remembered else None,
        alive=one.alive,
    )


def _dump_listener(one: Listener) -> SnapshotListener:
    return SnapshotListener(
        namespace=one.namespace,
        proto=one.proto.value,
        port=one.port,
        address=None if one.address is None else str(one.address),
        path=one.path,
        inode=one.inode,
        uid=one.uid,
        pids=list(one.pids),
        backlog=one.backlog,
        queue_limit=one.queue_limit,
        v6only=one.v6only,
        order=one.order,
    )


def _from_snapshot(snapshot: Snapshot) -> Node:
    sessions = cast("list[_RaySession]", snapshot["ray_sessions"])
    return Node(
        {one["pid"]: _load_process(one) for one in snapshot["processes"]},
        tuple(_load_listener(one) for one in snapshot["listeners"]),
        tuple(
            RaySession(one["directory"], {key: tuple(ports) for key, ports in one["ports"].items()})
            for one in sessions
        ),
    )


class _RaySession(TypedDict):
    directory: str
    ports: dict[str, list[int]]


def _load_process(one: SnapshotProcess) -> Process:
    libraries, exec_argv, remembered = one["libraries"], one["exec_argv"], one["remembered"]
    return Process(
        pid=one["pid"],
        ppid=one["ppid"],
        comm=one["comm"],
        argv=tuple(one["argv"]),
        start_time=one["start_time"],
        exe=one["exe"],
        uid=one["uid"],
        namespace=one["namespace"],
        cgroup=one["cgroup"],
        image=one["image"],
        env=one["env"],
        threads=one["threads"],
        libraries=None if libraries is None else frozenset(libraries),
        settings=one["settings"],
        exec_argv=None if exec_argv is None else tuple(exec_argv),
        birth_ppid=one["birth_ppid"],
        remembered=Stack(remembered) if remembered else None,
        alive=one["alive"],
    )


def _load_listener(one: SnapshotListener) -> Listener:
    address = one["address"]
    return Listener(
        namespace=one["namespace"],
        proto=Proto(one["proto"]),
        port=one["port"],
        address=None if address is None else ip_address(address),
        path=one["path"],
        inode=one["inode"],
        uid=one["uid"],
        pids=tuple(one["pids"]),
        backlog=one["backlog"],
        queue_limit=one["queue_limit"],
        v6only=one["v6only"],
        order=one["order"],
    )
