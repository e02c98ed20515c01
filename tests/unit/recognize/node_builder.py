"""Small nodes for tests: processes and listeners in one line each.

A command is written as one string; blanks separate words. Processes get their comm the way the
kernel would: the script for console scripts, else the executed file.
"""

from __future__ import annotations

import shlex
from ipaddress import ip_address
from itertools import count

from vllmwall.model import Listener, Node, Process, Proto, RaySession, Recognition, Role
from vllmwall.recognize import recognize
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.rows import Row

NAMESPACE = 4026531840
SPAWN = (
    "/venv/bin/python3",
    "-c",
    "from multiprocessing.spawn import spawn_main; spawn_main(tracker_fd=11)",
    "--multiprocessing-fork",
)
ZMQ_THREADS = {"ZMQbg/IO/0": 1, "ZMQbg/Reaper": 1}
GLOO_THREADS = {"gloo_tcp_loop": 1, "pt_gloo_runloop": 2}
STORE_THREADS = {"pt_tcpstore_uv": 1}

_inodes = count(1)


def process(pid: int, command: str = "", ppid: int = 1, **fields: object) -> Process:
    """A process started as this command line."""
    argv = tuple(shlex.split(command))
    executed = argv[0] if argv else ""
    is_python = executed.rpartition("/")[2].startswith("python")
    script = argv[1] if is_python and len(argv) > 1 and not argv[1].startswith("-") else ""
    named = script if script and not script.endswith(".py") else executed
    defaults: dict[str, object] = {
        "comm": named.rpartition("/")[2][:15],
        "argv": argv,
        "exec_argv": argv or None,
        "exe": "/usr/bin/python3.11" if is_python else executed,
        "birth_ppid": ppid,
        "start_time": pid,
        "namespace": NAMESPACE,
    }
    return Process(pid=pid, ppid=ppid, **{**defaults, **fields})


def renamed(pid: int, title: str, ppid: int, **fields: object) -> Process:
    """A multiprocessing child that renamed itself, as vLLM's and SGLang's do."""
    defaults: dict[str, object] = {
        "comm": title[:15],
        "argv": (title,),
        "exec_argv": SPAWN,
        "exe": "/usr/bin/python3.11",
    }
    return process(pid, "", ppid, **{**defaults, **fields})


def tcp(port: int, address: str, *pids: int, **fields: object) -> Listener:
    """A listening TCP socket."""
    inode = next(_inodes)
    fields = {"inode": inode, "order": inode, "namespace": NAMESPACE, **fields}
    return Listener(proto=Proto.TCP, port=port, address=ip_address(address), pids=pids, **fields)


def unix(path: str, *pids: int, **fields: object) -> Listener:
    """A listening unix socket."""
    inode = next(_inodes)
    fields = {"inode": inode, "order": inode, "namespace": NAMESPACE, **fields}
    return Listener(proto=Proto.UNIX, port=0, path=path, pids=pids, **fields)


def node(*parts: Process | Listener | RaySession) -> Node:
    """A node of these processes, listeners and Ray sessions."""
    return Node(
        {one.pid: one for one in parts if isinstance(one, Process)},
        tuple(one for one in parts if isinstance(one, Listener)),
        tuple(one for one in parts if isinstance(one, RaySession)),
    )


def seen(
    *parts: Process | Listener | RaySession,
    definitions: tuple[WorkloadDefinition, ...] = (),
    rows: tuple[Row, ...] = (),
) -> Recognition:
    """The recognition of a node with these parts."""
    return recognize(node(*parts), definitions, rows)


def roles(recognition: Recognition) -> dict[int | str, str]:
    """Role by port (or unix path); ``-`` for listeners of no workload."""
    found: dict[int | str, str] = {}
    for workload in recognition.workloads:
        for one in workload.listeners:
            found[one.listener.port or one.listener.path] = one.label.role.value
    for listener in recognition.unclaimed:
        found[listener.port or listener.path] = "-"
    return found


def stacks(recognition: Recognition) -> list[tuple[str, str, int]]:
    """Stack, name and root of each workload."""
    return [(one.stack.value, one.name, one.id.root_pid) for one in recognition.workloads]


def api_ports(recognition: Recognition) -> set[int | str]:
    """The ports and paths that are called api."""
    return {where for where, role in roles(recognition).items() if role == Role.API.value}
