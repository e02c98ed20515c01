"""Rows of the operator: `[[program]]` of the configuration."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.unit.recognize.node_builder import api_ports, process, roles, seen, stacks, tcp
from vllmwall.model import Process
from vllmwall.recognize import is_claimed
from vllmwall.recognize.row_file import row_of, table
from vllmwall.recognize.rows import ports_in

PYTHON = "/venv/bin/python3"
STORE = {"threads": {"pt_tcpstore_uv": 1}, "libraries": frozenset({"torch"})}
ROW = row_of(
    {
        "stack": "custom",
        "part": "front-mine",
        "programs": ["*own-server*"],
        "modules": ["own_server.*"],
        "ports": [
            {
                "role": "api",
                "flags": ["gate-port"],
                "short": ["-port"],
                "env": ["PORT"],
                "ports": [9000],
            },
            {"role": "kv-transfer", "ports": [9001]},
        ],
        "rest": "zmq",
        "why": "our own",
    },
    "/etc/vllmwall/conf.d/own.toml:3",
)


def server(command: str, **fields: object) -> Process:
    return process(10, command, **fields)


@pytest.mark.parametrize(
    ("command", "api"),
    [
        ("/opt/the-own-server-2 --x", {9000}),
        ("/opt/own-server --gate-port 8000", {8000}),
        ("/opt/own-server --gate-port=0.0.0.0:8000", {8000}),
        ("/opt/own-server -port 8000", {8000}),
        ("/opt/own-server -port=8000", {8000}),
        (f"{PYTHON} -m own_server.main --gate_port 8000", {8000}),
        (f"{PYTHON} /srv/own-server.py", {9000}),
        ("/opt/another --gate-port 8000", set()),
    ],
)
def test_a_program_is_known_by_its_row(command: str, api: set[int]) -> None:
    """Name, module, flags and default port; without the row it is no workload."""
    parts = (server(command), *(tcp(port, "0.0.0.0", 10) for port in (8000, 9000, 9001, 9002)))
    found = seen(*parts, rows=(ROW,))
    assert api_ports(found) == api
    assert not seen(*parts).workloads
    assert is_claimed(parts[0], rows=(ROW,)) is bool(api)
    assert is_claimed(parts[0]) is False


def test_the_other_listeners_are_internal_and_the_row_is_named() -> None:
    """`status --why` shows where the row was written."""
    found = seen(
        server("/opt/own-server"), *(tcp(n, "0.0.0.0", 10) for n in (9000, 9001, 9002)), rows=(ROW,)
    )
    assert roles(found) == {9000: "api", 9001: "kv-transfer", 9002: "zmq"}
    assert stacks(found) == [("custom", "own-server", 10)]
    place = "custom front-mine: our own (by /etc/vllmwall/conf.d/own.toml:3)"
    for one in found.workloads[0].listeners:
        assert ("program", place) in {(each.kind, each.detail) for each in one.label.evidence}


def test_the_operators_row_comes_before_ours() -> None:
    """It may say something else about a program that we know."""
    row = row_of(
        {
            "stack": "custom",
            "part": "tgi",
            "programs": ["text-generation-router"],
            "ports": [{"role": "backend", "ports": [3000]}],
        },
        "x:1",
    )
    parts = (server("/opt/text-generation-router"), tcp(3000, "0.0.0.0", 10))
    assert roles(seen(*parts)) == {3000: "api"}
    assert roles(seen(*parts, rows=(row,))) == {3000: "backend"}


def test_a_listener_that_no_row_explains_is_unknown_and_no_problem() -> None:
    """It is for peers, and nothing went wrong: the stack has rows only, and the helper has none."""
    row = row_of({"stack": "tgi", "part": "x", "programs": ["own-server"]}, "x:1")
    helper = process(11, "/opt/own-helper", 10)
    listeners = tcp(3000, "0.0.0.0", 10), tcp(3001, "0.0.0.0", 11)
    found = seen(server("/opt/own-server"), helper, *listeners, rows=(row,))
    assert ({3000: "unknown", 3001: "unknown"}, ()) == (roles(found), found.problems)


@pytest.mark.parametrize(("unit", "known"), [("own.service", True), ("session-1.scope", False)])
def test_a_bound_row_knows_only_what_a_user_cannot_choose(unit: str, known: bool) -> None:
    """The name is the user's choice, the system unit is not."""
    row = replace(
        ROW, match=row_of({"stack": "custom", "part": "x", "match": {"unit": "own.service"}}).match
    )
    found = seen(
        server("/opt/own-server", cgroup=f"/system.slice/{unit}"),
        tcp(9000, "0.0.0.0", 10),
        rows=(row,),
    )
    assert roles(found) == {9000: "api" if known else "-"}


def test_a_liar_of_the_same_name_opens_nothing_of_others() -> None:
    """A store of another user's job on the same port number stays what it is."""
    liar = replace(process(30, "/tmp/own-server", cgroup="/user.slice/liar"), uid=1001)
    rank = process(
        10, f"{PYTHON} train.py", threads={"pt_tcpstore_uv": 1}, libraries=frozenset({"torch"})
    )
    found = seen(
        rank,
        liar,
        tcp(9000, "10.0.0.1", 10, backlog=-1),
        tcp(9000, "10.0.0.2", 30),
        rows=(ROW,),
    )
    labels = {
        str(one.listener.address): one.label.role.value
        for workload in found.workloads
        for one in workload.listeners
    }
    assert labels == {"10.0.0.1": "tcpstore", "10.0.0.2": "api"}


def test_a_library_of_a_rank_speaks_against_the_row() -> None:
    """The name of a program does not make a TCPStore an API."""
    fields = {"threads": {"pt_tcpstore_uv": 1}, "libraries": frozenset({"torch"})}
    found = seen(server("/opt/own-server", **fields), tcp(9000, "::", 10, backlog=-1), rows=(ROW,))
    assert roles(found) == {9000: "tcpstore"}


def test_the_same_rows_make_one_table() -> None:
    """It is made once, not in every pass."""
    assert table((ROW,)) is table((replace(ROW),))


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        *(("8000", (8000,)), ("0.0.0.0:8000", (8000,)), ("[::]:8000", (8000,))),
        *(("tcp:port=8000", (8000,)), ("0.0.0.0:0", ()), ("0", ()), ("", ()), ("host", ())),
    ],
)
def test_a_port_that_the_kernel_chooses_is_not_named(text: str, ports: tuple[int, ...]) -> None:
    """0 is no port: another flag or variable may still name one."""
    assert ports == ports_in(text)
