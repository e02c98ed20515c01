"""Which workloads say that they run on several hosts, and which heads they name."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from tests.unit.recognize.node_builder import NAMESPACE, node, process
from vllmwall.model import Stack, Workload, WorkloadId
from vllmwall.recognize.several_hosts import SeveralHosts, several_hosts

OWN = frozenset({ip_address("10.0.0.1"), ip_address("fd00::1")})
VLLM = "/venv/bin/vllm serve m --tensor-parallel-size 16"
RAYLET = "/venv/ray/raylet/raylet --raylet_socket_name=/tmp/x"


def said(command: str, **env: str) -> SeveralHosts | None:
    """Of a workload of one process."""
    one = process(7, command, env=env)
    workload = Workload(WorkloadId(7, 7), Stack.VLLM, "m", frozenset({7}), ())
    assert one.namespace == NAMESPACE
    return several_hosts(workload, node(one).processes, OWN)


@pytest.mark.parametrize(
    ("command", "env", "reason", "heads"),
    [
        (f"{VLLM} --nnodes 2 --master-addr 10.0.0.1", {}, "--nnodes 2", ["10.0.0.1"]),
        (f"{VLLM} --nnodes=2 --master-addr=head.internal", {}, "--nnodes 2", []),
        (f"{VLLM} --master-addr 10.0.0.7", {}, "--master-addr 10.0.0.7", ["10.0.0.7"]),
        ("/venv/bin/torchrun --nnodes 1:4 train.py", {}, "--nnodes 4", []),
        (
            "/venv/bin/torchrun --rdzv-endpoint=[fd00::7]:29400 train.py",
            {},
            "--rdzv-endpoint fd00::7",
            ["fd00::7"],
        ),
        ("python train.py", {"MASTER_ADDR": "10.0.0.7"}, "MASTER_ADDR 10.0.0.7", ["10.0.0.7"]),
        (
            "python train.py",
            {"MASTER_ADDR": "10.0.0.1", "WORLD_SIZE": "16", "LOCAL_WORLD_SIZE": "8"},
            "WORLD_SIZE 16, LOCAL_WORLD_SIZE 8",
            ["10.0.0.1"],
        ),
        (f"{RAYLET} --gcs-address=10.0.0.7:6379", {}, "--gcs-address 10.0.0.7", ["10.0.0.7"]),
        (
            f"{VLLM} -- --nnodes 2",
            {"MASTER_ADDR": "10.0.0.7"},
            "MASTER_ADDR 10.0.0.7",
            ["10.0.0.7"],
        ),
    ],
)
def test_a_job_on_several_hosts_says_so(
    command: str, env: dict[str, str], reason: str, heads: list[str]
) -> None:
    """By the number of hosts, or by a head that is another host."""
    assert said(command, **env) == SeveralHosts(reason, tuple(map(ip_address, heads)))


@pytest.mark.parametrize(
    ("command", "env"),
    [
        (VLLM, {}),
        (f"{VLLM} --nnodes 1 --master-addr 127.0.0.1", {}),
        ("/venv/bin/torchrun --nnodes=1:1 --rdzv-endpoint=localhost:0 train.py", {}),
        (f"{RAYLET} --gcs-address=10.0.0.1:6379", {}),
        ("python train.py", {"WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "8", "MASTER_ADDR": "fd00::1"}),
        (f"{VLLM} --nnodes two --master-addr '10.0.0.7 and more'", {}),
        (f"{VLLM} --nnodes {'9' * 5000}", {}),
    ],
)
def test_a_job_on_this_host_says_nothing(command: str, env: dict[str, str]) -> None:
    """A head that is this host, loopback, and text that is no address or number."""
    assert said(command, **env) is None
