"""Reads the workloads of the node into `Subject` values; no other part of an audit reads it.

Needs root for other users' processes. Its results never hold a secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from vllmwall.inspect.audit.collect.commands import command_line, environment, is_title, secrets_of
from vllmwall.inspect.audit.collect.confinement import confinement
from vllmwall.inspect.audit.collect.node import (
    addresses,
    networks,
    proxies,
    public_address,
    rdma_devices,
)
from vllmwall.inspect.audit.collect.packages import versions
from vllmwall.inspect.audit.collect.weights import weights
from vllmwall.inspect.audit.rules import cves
from vllmwall.inspect.audit.types import CommandLine, Place, Subject
from vllmwall.model import LabelledListener, Node, Process, Role, Stack, Workload
from vllmwall.recognize import lmdeploy, ray, sglang, torch, vllm
from vllmwall.recognize.commandline import command_of
from vllmwall.recognize.stack_rules import Candidate, Claim
from vllmwall.recognize.vllm_flags import ServerFlags

_STACKS = (sglang.RULES, vllm.RULES, ray.RULES, lmdeploy.RULES, torch.RULES)
_PACKAGES = frozenset({"vllm", "sglang", "lmdeploy", "ray", "torch", "starlette"})

_DEEPEST = 64

Spot = tuple[int, str, str, int]
"""Namespace, protocol, address as in the status, port."""


@dataclass(frozen=True)
class DaemonView:
    """The daemon's view of a listener: its role, and whether strangers are blocked."""

    role: Role
    walled: bool


@dataclass(frozen=True)
class Lookup:
    """Facts from outside the node: the daemon's views, the checksums of weights, and patterns of
    the models that the configuration allows; empty: any."""

    views: Mapping[Spot, DaemonView] = field(default_factory=dict)
    sums: Mapping[str, str] | None = None
    allowed_models: tuple[str, ...] = ()


def subjects(node: Node, workloads: Iterable[Workload], lookup: Lookup) -> Iterator[Subject]:
    """One for each server process; for a workload without a known one, one for its root."""
    for workload in workloads:
        fronts: dict[int, Claim | None] = dict(_fronts(node, workload))
        fronts = fronts or {workload.id.root_pid: None}
        for pid, claim in fronts.items():
            process = node.processes.get(pid)
            if process is not None:
                yield _subject(node, workload, process, claim, lookup)


def _fronts(node: Node, workload: Workload) -> Iterator[tuple[int, Claim]]:
    """The topmost processes that were started as a server; their forks look the same."""
    claims = {pid: _claim(node.processes.get(pid)) for pid in sorted(workload.pids)}
    for pid, claim in claims.items():
        if claim and all(claims[above] != claim for above in _above(node, workload, pid)):
            yield pid, claim


def _above(node: Node, workload: Workload, pid: int) -> list[int]:
    """The ancestors of a process in its workload."""
    found: list[int] = []
    while (process := node.processes.get(pid)) and len(found) < _DEEPEST:
        pid = process.ppid
        if pid not in workload.pids:
            break
        found.append(pid)
    return found


def _claim(process: Process | None) -> Claim | None:
    """The claim by its own command line."""
    if process is None:
        return None
    candidate = Candidate.of(process)
    for rules in _STACKS:
        claim = rules.claim(candidate)
        if claim is not None:
            return claim if claim.launched else None
    return None


def _subject(
    node: Node, workload: Workload, process: Process, claim: Claim | None, lookup: Lookup
) -> Subject:
    pid, stack = process.pid, claim.stack if claim else workload.stack
    env = environment(pid)
    places = tuple(_place(one, lookup) for one in workload.listeners)
    found = addresses(pid)
    model = _model(process, claim) if claim else ""
    return Subject(
        workload=workload.name,
        stack=stack,
        pid=pid,
        part=claim.part if claim else "",
        model=model,
        command=_command(node, workload, process, claim),
        environment=env,
        places=places,
        versions=versions(process, _PACKAGES | {cve.package for cve in cves()}),
        public=public_address((one for one in places if one.role is Role.API), found),
        networks=networks(found),
        proxies=proxies(node, process.namespace),
        confinement=confinement(pid),
        weights=weights(pid, model, env, lookup.sums),
        rdma=rdma_devices(workload.pids),
        allowed_models=lookup.allowed_models,
        ray_auth_mode=_ray_auth_mode(node, workload),
    )


def _ray_auth_mode(node: Node, workload: Workload) -> str | None:
    """RAY_AUTH_MODE as Ray's node processes got it: ``ray start`` and ``ray.init()`` set it for
    them where a token is on by default, and they never rename themselves."""
    for pid in sorted(workload.pids):
        process = node.processes.get(pid)
        if process is not None and process.comm in ("gcs_server", "raylet"):
            env = environment(pid)
            if env.complete:
                return env.values.get("RAY_AUTH_MODE", "").lower()
    return None


def _command(node: Node, workload: Workload, process: Process, claim: Claim | None) -> CommandLine:
    """The server's flags, and every secret on a command line of the workload."""
    own = command_line(process, claim.stack) if claim else CommandLine()
    others = (node.processes[pid] for pid in sorted(workload.pids) if pid in node.processes)
    stack = claim.stack if claim else workload.stack
    secrets = {name: None for one in others for name in secrets_of(one, stack)}
    return CommandLine(own.flags, own.complete, tuple(secrets), not is_title(process))


def _model(process: Process, claim: Claim) -> str:
    command = command_of(process)
    if claim.stack is Stack.VLLM:
        return ServerFlags.of(process).model
    flags = command_line(process, claim.stack).flags
    if claim.stack is Stack.SGLANG:
        return flags.text("model-path") or flags.text("model") or ""
    if claim.stack is Stack.LMDEPLOY and claim.part == "api_server":
        return command.words[2] if len(command.words) > 2 else ""
    return ""


def _place(one: LabelledListener, lookup: Lookup) -> Place:
    listener = one.listener
    spot = listener.namespace, listener.proto.value, listener.address_text, listener.port
    view = lookup.views.get(spot)
    if view is None:
        return Place(one.label.role, listener)
    return Place(view.role, listener, view.walled)
