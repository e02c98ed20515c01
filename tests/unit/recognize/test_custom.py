"""Software that the configuration names."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.recognize.node_builder import api_ports, process, roles, seen, stacks, tcp, unix
from vllmwall.recognize.definitions import Match, WorkloadDefinition

UNIT = "/system.slice/my-llm.service"


def definition(*ports: int, **match: str) -> WorkloadDefinition:
    """A definition called mine."""
    return WorkloadDefinition("mine", Match(**match), frozenset(ports))


@pytest.mark.parametrize(
    ("match", "matches"),
    [
        ({"unit": "my-llm.service"}, True),
        ({"unit": "my-*.service"}, True),
        ({"unit": "system.slice"}, False),
        ({"cgroup": "/system.slice/*"}, True),
        ({"exe": "/opt/llm/*"}, True),
        ({"exe": "/opt/llm"}, False),
        ({"argv": "*serve-llm *--fast*"}, True),
        ({"argv": "serve-llm"}, False),
        ({"unit": "my-llm.service", "exe": "/usr/*"}, False),
        ({"image": "*/my-llm:*"}, True),
        ({"image": "other:latest"}, False),
        ({}, False),
    ],
)
def test_every_field_that_is_set_must_hold(match: dict[str, str], matches: bool) -> None:
    """Globs over exe, command line, unit, cgroup and image; an empty match never holds."""
    server = process(10, "/opt/llm/bin/serve-llm --x --fast yes", cgroup=f"{UNIT}/app")
    server = replace(server, image="registry.local/my-llm:2")
    found = seen(server, tcp(9000, "0.0.0.0", 10), definitions=(definition(9000, **match),))
    assert stacks(found) == ([("custom", "mine", 10)] if matches else [])


def test_taught_ports_are_public_for_the_matched_tree_only() -> None:
    """The definition's port in another process stays what it was; other ports are internal."""
    found = seen(
        process(10, "/opt/llm/serve", cgroup=UNIT),
        process(11, "/opt/llm/helper", 10),
        process(20, "/usr/sbin/nginx"),
        tcp(9000, "0.0.0.0", 11),
        tcp(9001, "0.0.0.0", 10, backlog=100),
        tcp(9000, "127.0.0.1", 20),
        unix("/run/9000", 10),
        definitions=(definition(9000, unit="my-llm.service"),),
    )
    labels = [one.label for one in found.workloads[0].listeners]
    assert [one.role.value for one in labels] == ["api", "zmq", "unix"]
    assert labels[0].evidence[0].kind == "defined"
    assert [one.pids for one in found.unclaimed] == [(20,)]


def test_lesson_declares_the_api_of_a_stack_we_know() -> None:
    """A web server around an offline engine: the definition adds its port, the stack stays."""
    script = process(10, "/v/python3 app.py", libraries=frozenset({"vllm"}), cgroup=UNIT)
    found = seen(
        script,
        tcp(9000, "::", 10, backlog=100),
        tcp(9001, "::", 10, backlog=-1),
        definitions=(definition(9000, unit="my-llm.service"),),
    )
    assert stacks(found) == [("vllm", "app.py", 10)]
    assert roles(found) == {9000: "api", 9001: "tcpstore"}


def test_lesson_covers_its_whole_unit() -> None:
    """All below the unit's first process is one workload, with its own stack's roles."""
    found = seen(
        process(9, "/bin/bash start.sh", cgroup=UNIT),
        process(10, "/v/python3 /v/bin/vllm serve m", 9, cgroup=UNIT),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
        definitions=(definition(unit="my-llm.service"),),
    )
    assert stacks(found) == [("custom", "mine", 9)]
    assert api_ports(found) == {8000}


def test_lesson_on_one_child_says_nothing_about_its_siblings() -> None:
    """The port is public where the matched process owns it, not elsewhere in the workload."""
    found = seen(
        process(10, "/v/python3 /v/bin/vllm serve m"),
        process(11, "/opt/llm/proxy", 10),
        process(12, "/opt/other", 10),
        tcp(9000, "0.0.0.0", 12),
        definitions=(definition(9000, exe="/opt/llm/proxy"),),
    )
    assert roles(found) == {9000: "unknown"}


def test_what_listens_in_our_slice_is_a_workload_and_keeps_its_children() -> None:
    """The operator put it there. A stack that knows the process better comes first."""
    place = "/vllmwall.slice/run-7.scope"
    found = seen(
        process(10, "/opt/own/server", cgroup=place),
        process(11, "/opt/own/helper", 10, cgroup=place),
        process(20, "/usr/bin/vllm serve m --port 8000", cgroup="/vllmwall.slice/vllm.service"),
        process(30, "/opt/own/server", cgroup="/vllmwall.slices/run-8.scope"),
        tcp(9000, "0.0.0.0", 10),
        tcp(9001, "0.0.0.0", 11),
        tcp(8000, "0.0.0.0", 20, backlog=2048),
        tcp(9000, "192.0.2.1", 30),
    )
    assert [("custom", "run-7.scope", 10), ("vllm", 20)] == [
        (stack, *((name,) if stack == "custom" else ()), pid) for stack, name, pid in stacks(found)
    ]
    assert [{"unknown"}, {"api"}] == [
        {one.label.role.value for one in each.listeners} for each in found.workloads
    ]
    assert [one.pids for one in found.unclaimed] == [(30,)]
