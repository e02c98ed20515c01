"""Workloads that say themselves that they run on several hosts. Pure.

From their command lines and environments, which their users write: good for advice, never for
trust. Flags: torch/distributed/run.py, vllm/engine/arg_utils.py, sglang/srt/server_args.py, and
Ray's python/ray/_private/services.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address

from vllmwall.model import Address, Process, Workload
from vllmwall.recognize.commandline import Flags, command_of, read_flags, whole_number

_HEADS = (
    *("master-addr", "rdzv-endpoint", "dist-init-addr", "data-parallel-address"),
    *("gcs-address", "address"),
)
_MOST_HEADS = 8


@dataclass(frozen=True)
class SeveralHosts:
    """The reason, as written there (``--nnodes 2``), and the addresses of the heads that it names,
    this node's own among them. Host names are not resolved."""

    reason: str
    heads: tuple[Address, ...] = ()


def several_hosts(
    workload: Workload, processes: Mapping[int, Process], own: frozenset[Address]
) -> SeveralHosts | None:
    """None: nothing says so. ``own``: the addresses of this node."""
    reasons: list[str] = []
    heads: dict[Address, None] = {}
    for pid in sorted(workload.pids):
        if process := processes.get(pid):
            flags = read_flags(command_of(process).args, ("nnodes", *_HEADS))
            reasons += _counted(flags, process.env)
            for name, head in _heads(flags, process.env):
                heads[head] = None
                if not (head in own or head.is_loopback):
                    reasons.append(f"{name} {head}")
    if not reasons:
        return None
    remote = [one for one in heads if not (one.is_loopback or one.is_unspecified)]
    return SeveralHosts(reasons[0], tuple(remote[:_MOST_HEADS]))


def _counted(flags: Flags, env: Mapping[str, str]) -> Iterator[str]:
    most = whole_number((flags.text("nnodes") or "").rpartition(":")[2])  # torchrun: 1:4
    if most is not None and most > 1:
        yield f"--nnodes {most}"
    world = whole_number(env.get("WORLD_SIZE", ""))
    local = whole_number(env.get("LOCAL_WORLD_SIZE", ""))
    if world and local and world > local:
        yield f"WORLD_SIZE {world}, LOCAL_WORLD_SIZE {local}"


def _heads(flags: Flags, env: Mapping[str, str]) -> Iterator[tuple[str, Address]]:
    named = [(f"--{name}", flags.text(name) or "") for name in _HEADS]
    for name, text in (*named, ("MASTER_ADDR", env.get("MASTER_ADDR", ""))):
        host = text.rpartition(":")[0] if text.count(":") == 1 or "]:" in text else text
        try:
            yield name, ip_address(host.strip("[]"))
        except ValueError:
            continue
