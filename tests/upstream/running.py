"""Starts a package in a namespace of its own, and takes a snapshot of what it listens on."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.guarded import Guarded, running
from tests.support.lab import Host, Lab
from tests.support.waiting import eventually
from tests.upstream.packages import Package
from vllmwall.model import Listener, Role
from vllmwall.observe.parts import of_workloads
from vllmwall.observe.snapshot import dump, load
from vllmwall.recognize import recognize

_SECONDS = 240.0
_LOOKS = 100  # with nothing new


def unknown_listeners(package: Package, folder: Path) -> list[str]:
    """Start it behind a daemon, write `snapshot.json`, and name what has no role."""
    with Lab() as lab:
        wall = running(lab, folder / "wall")
        for port, text in package.start:
            _start(lab, package, folder, port, text)
        _wait_until_quiet(lab, wall)
        _write(lab, wall, folder / "snapshot.json")
    return without_role(folder / "snapshot.json")


def _start(lab: Lab, package: Package, folder: Path, port: int, text: str) -> None:
    """Start one program, and wait for its port; 0: for none."""
    log = folder / f"{port}.log"
    log.touch()
    command, env = package.command(text, folder), package.variables(folder)
    process = lab.node.popen(command, env=env, cwd=folder, output=log)

    def has_started() -> bool:
        if process.poll() is not None:
            raise RuntimeError(f"{text} ended:\n{log.read_text()[-2000:]}")
        return not port or port in _ports(lab.node)

    eventually(has_started, f"port {port} listens", log, patience=_SECONDS)


def _ports(host: Host) -> set[int]:
    """Every TCP port on which something listens."""
    lines = host.run(["ss", "-ltnH"]).stdout.splitlines()
    return {int(line.split()[3].rpartition(":")[2]) for line in lines}


def _wait_until_quiet(lab: Lab, wall: Guarded) -> None:
    """Until nothing new listens for some seconds; the daemon sees what listens in milliseconds."""
    looks: list[set[int]] = []

    def is_quiet() -> bool:
        looks.append(_ports(lab.node))
        return len(looks) > _LOOKS and all(one == looks[-1] for one in looks[-_LOOKS:])

    eventually(is_quiet, "nothing new listens", wall.log, patience=_SECONDS)


def _write(lab: Lab, wall: Guarded, path: Path) -> None:
    done = wall.command("snapshot", "--namespace", Path(lab.node.path).name, "-o", str(path))
    if done.returncode:
        raise RuntimeError(done.stderr)


def without_role(path: Path) -> list[str]:
    """The listeners beyond loopback of a snapshot that have no role, or are in no workload."""
    found = recognize(load(path))
    lines = [
        f"{one.listener.where}: no role in {workload.stack.value}"
        for workload in found.workloads
        for one in workload.listeners
        if one.label.role is Role.UNKNOWN and _counts(one.listener)
    ]
    return lines + [f"{one.where}: in no workload" for one in found.unclaimed if _counts(one)]


def _counts(listener: Listener) -> bool:
    return listener.address is not None and not listener.is_loopback


def record(path: Path, target: Path, version: str) -> None:
    """Keep the workloads of a snapshot as a recording, with the roles that they have now, which a
    person checks."""
    node = load(path)
    workloads = recognize(node).workloads
    facts = {"scenario": target.stem, "version": version}
    content = dict(dump(of_workloads(node, workloads), host_facts=facts))
    roles = {
        str(one.listener.inode): one.label.role.value
        for workload in workloads
        for one in workload.listeners
    }
    kept = json.loads(json.dumps({**content, "roles": roles}))
    members = {pid for workload in workloads for pid in workload.pids}
    kept["processes"] = [one for one in kept["processes"] if one["pid"] in members]
    for process in kept["processes"]:
        process |= {"cgroup": "/", "remembered": None}
    target.write_text(json.dumps(kept, indent=1) + "\n")
