"""Starts a package in a namespace of its own, and takes a snapshot of what it listens on."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.guarded import Guarded, running
from tests.support.lab import Lab
from tests.support.waiting import eventually
from tests.upstream.packages import Package
from tests.workloads.listening import listeners_of
from vllmwall.model import Listener, Role
from vllmwall.observe.snapshot import load
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
        return not port or any(one.port == port for one in listeners_of(lab.node))

    eventually(has_started, f"port {port} listens", log, patience=_SECONDS)


def _wait_until_quiet(lab: Lab, wall: Guarded) -> None:
    """Until nothing new listens for some looks, and the daemon has seen it all."""
    looks: list[set[int]] = []

    def is_quiet() -> bool:
        looks.append({one.port for one in listeners_of(lab.node)})
        return len(looks) > _LOOKS and all(one == looks[-1] for one in looks[-_LOOKS:])

    eventually(is_quiet, "nothing new listens", wall.log, patience=_SECONDS)
    wall.settled()


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
    """Keep a snapshot as a recording, with the roles that it has now. A person checks them."""
    content = json.loads(path.read_text())
    found = recognize(load(path))
    roles = {one.inode: "unclaimed" for one in found.unclaimed}
    for workload in found.workloads:
        roles |= {one.listener.inode: one.label.role.value for one in workload.listeners}
    content["roles"] = {str(one["inode"]): roles[one["inode"]] for one in content["listeners"]}
    content["host"] = {"scenario": target.stem, "version": version}
    for process in content["processes"]:
        process |= {"cgroup": "/", "remembered": None}
    target.write_text(json.dumps(content, indent=1) + "\n")
