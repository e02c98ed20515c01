"""Processes outside every workload that use a GPU or a transport are named, and no others."""

from __future__ import annotations

import pytest

from tests.unit.recognize.node_builder import NAMESPACE, node, process, tcp, unix
from vllmwall.model import Listener, Process
from vllmwall.recognize import recognize
from vllmwall.recognize.inputs import GPU
from vllmwall.recognize.outsiders import Outsider, by_namespace, outsiders

WEB = {"backlog": 2048, "queue_limit": 2048}


def found(*parts: Process | Listener) -> tuple[Outsider, ...]:
    """The outsiders of a node of these."""
    made = node(*parts)
    return outsiders(recognize(made), made.processes)


def server(uses: str, **fields: object) -> Process:
    """A program that no stack knows and that maps these libraries."""
    fields = {"libraries": frozenset(uses.split()), **fields}
    return process(7, "/opt/own/serve-it", **fields)


@pytest.mark.parametrize("uses", ["gpu", "torch", "nccl", "jax", "vllm", "torch httptools"])
def test_a_reachable_process_with_a_gpu_or_a_transport_is_named(uses: str) -> None:
    """A web server around torch is no workload by its transport, and may hold a model."""
    [one] = found(server(uses), tcp(9000, "0.0.0.0", 7, **WEB), tcp(9001, "::", 7, **WEB))
    assert (7, [9000, 9001]) == (one.process.pid, [each.port for each in one.listeners])
    assert set(one.uses) == set(uses.split()) - {"httptools"}


@pytest.mark.parametrize("uses", ["", "zmq", "httptools"])
def test_a_process_without_either_is_not_named(uses: str) -> None:
    """sshd, nginx, a web server."""
    assert () == found(server(uses), tcp(9000, "0.0.0.0", 7, **WEB))


def test_what_could_not_be_read_is_not_guessed() -> None:
    """`processes-left-out` names it."""
    assert () == found(server("", libraries=None), tcp(9000, "0.0.0.0", 7, **WEB))


def test_only_listeners_beyond_loopback_count() -> None:
    """No other host reaches the others."""
    assert () == found(
        server("gpu"),
        tcp(9000, "127.0.0.1", 7, **WEB),
        tcp(9001, "::ffff:127.0.0.1", 7, **WEB),
        unix("/run/own.sock", 7),
    )


def test_a_workload_is_known() -> None:
    """It is in the wall already."""
    made = process(
        7, "/venv/bin/vllm serve tiny --port 9000", libraries=frozenset({"gpu", "torch"})
    )
    assert () == found(made, tcp(9000, "0.0.0.0", 7, **WEB))


@pytest.mark.parametrize(("uid", "expected"), [(0, 0), (1000, 1)])
def test_a_monitor_is_one_only_where_root_runs_it(uid: int, expected: int) -> None:
    """Any user can call a program dcgm-exporter."""
    made = server(GPU, exe="/usr/bin/dcgm-exporter", uid=uid)
    assert expected == len(found(made, tcp(9400, "::", 7, **WEB)))


def test_they_are_sorted_by_namespace() -> None:
    """One line of `status` for each."""
    one, other = server(GPU), process(8, "/opt/b", libraries=frozenset({GPU}))
    elsewhere = {**WEB, "namespace": NAMESPACE + 1}
    every = found(one, other, tcp(1, "::", 8, **elsewhere), tcp(2, "::", 7, **WEB))
    assert [(NAMESPACE, [7]), (NAMESPACE + 1, [8])] == [
        (inode, [each.process.pid for each in group]) for inode, group in by_namespace(every)
    ]
