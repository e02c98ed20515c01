"""Sockets of other programs that lead to a workload's: they are what they lead to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.recognize.node_builder import NAMESPACE, node, process, roles, tcp
from vllmwall.recognize import recognize


@pytest.mark.parametrize(("inner", "outer"), [(29500, "zmq"), (8000, "-")])
def test_a_relay_to_an_internal_port_is_internal_and_one_to_an_api_is_left_alone(
    inner: int, outer: str
) -> None:
    """A proxy before an API is a program of its own: its port may be where keys are checked."""
    job = process(10, "/venv/bin/python3 /venv/bin/vllm serve m")
    api = tcp(8000, "127.0.0.1", 10, backlog=2048)
    internal = tcp(29500, "127.0.0.1", 10, backlog=100)
    proxy = tcp(443, "0.0.0.0", 20)
    found = node(job, process(20, "/usr/bin/socat"), api, internal, proxy)
    behind = {8000: api, 29500: internal}[inner]
    found = replace(found, relays=((NAMESPACE, proxy.inode, behind.inode),))
    assert {8000: "api", 29500: "zmq", 443: outer} == roles(recognize(found))
