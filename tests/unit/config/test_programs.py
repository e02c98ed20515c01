"""The table [[program]]: rows of the operator, and what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from vllmwall.config import ConfigError, load
from vllmwall.config.models import Config
from vllmwall.model import Role, Stack
from vllmwall.recognize.definitions import Match
from vllmwall.recognize.rows import Names, PortRule, Row

START = '[[program]]\npart = "mine"\nprograms = ["my-server"]\n'


def test_a_row_has_what_was_written_and_where(write: Callable[..., Path]) -> None:
    """Rows of all files, in the order of merging."""
    main = write(START + 'rest = "kv-transfer"\n')
    other = write(
        """# ours
[[program]]
stack = "router"
part = "front"
modules = ["gate.main"]
titles = ["gate::*"]
words = ["serve"]
match = { unit = "gate.service" }
why = "the front door"
ports = [
    { role = "api", flags = ["http-port"], short = ["-p"], env = ["PORT"], ports = [9000] },
    { role = "metrics", backlog = [-1, 5] },
]
""",
        "conf.d/gate.toml",
    )
    assert load(main).rows() == (
        Row(
            Stack.CUSTOM,
            "mine",
            Names(programs=("my-server",)),
            rest=Role.KV_TRANSFER,
            place=f"{main}:1",
        ),
        Row(
            Stack.ROUTER,
            "front",
            Names(modules=("gate.main",), titles=("gate::*",)),
            words=frozenset({"serve"}),
            ports=(
                PortRule(Role.API, ("http-port",), ("-p",), ("PORT",), (9000,)),
                PortRule(Role.METRICS, backlog=(-1, 5)),
            ),
            why="the front door",
            match=Match(unit="gate.service"),
            place=f"{other}:2",
        ),
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('[[program]]\npart = "x"', "1: program[0]: needs at least one of programs, modules, "
         "titles"),
        ("[[program]]\nprograms = [\"abc\"]", "1: program[0].part: is missing"),
        ('part = "a b"', '4: program[0].part: "a b" is not a workload name. Use a letter or digit, '
         "then up to 62 of A-Z a-z 0-9 . _ -"),
        ('modules = ["*"]', '4: program[0].modules[0]: "*" matches nearly every program of this '
         "node. Use a more specific name."),
        ('modules = ["*.py"]', '4: program[0].modules[0]: "*.py" matches nearly every program of '
         "this node. Use a more specific name."),
        ('words = ["two words"]', '4: program[0].words[0]: "two words" is not one word of a '
         "command line, like serve or --serve"),
        ('rest = "api"', "4: program[0].rest: a program's name alone does not make an API. Name "
         "its ports in ports, with flags, env or numbers."),
        ("match = {}", "4: program[0].match: needs at least one of exe, unit, image, cgroup"),
        ('match = { exe = "*" }', '4: program[0].match.exe: "*" matches every process of this '
         "node. Use a more specific pattern."),
        ('match = { argv = "x" }', "4: program[0].match.argv: unknown key; allowed here: exe, "
         "unit, image, cgroup"),
        ('ports = [{ role = "api" }]', "4: program[0].ports[0]: an API needs its port: name it "
         "with flags, short, env or ports"),
        ('ports = [{ role = "api", backlog = [128] }]', "4: program[0].ports[0]: an API needs its "
         "port: name it with flags, short, env or ports"),
        ('ports = [{ role = "zmq" }]', "4: program[0].ports[0]: needs at least one of flags, "
         "short, env, ports, backlog"),
        ('ports = [{ role = "zmq", flags = ["--port"] }]', '4: program[0].ports[0].flags[0]: '
         '"--port" is not the name of a flag with a port. Write it without dashes; its last part '
         "is port, bind, listen, addr or address, as in http-port"),
        ('ports = [{ role = "zmq", flags = ["token"] }]', '4: program[0].ports[0].flags[0]: '
         '"token" is not the name of a flag with a port. Write it without dashes; its last part is '
         "port, bind, listen, addr or address, as in http-port"),
        ('ports = [{ role = "zmq", short = ["-k"] }]', '4: program[0].ports[0].short[0]: "-k" is '
         "not a short flag with a port. Allowed are -P, -asc, -b, -dp, -dpl, -dpm, -dpp, -p, and "
         "flags like -port and -http-port"),
        ('ports = [{ role = "zmq", ports = [70000] }]', "4: program[0].ports[0].ports[0]: must be "
         "at most 65535, not 70000"),
        ('ports = [{ role = "zmq", colour = 3 }]', "4: program[0].ports[0].colour: unknown key; "
         "allowed here: role, flags, short, env, ports, backlog"),
    ],
)  # fmt: skip
def test_a_bad_row_is_named_with_its_place(
    problems: Callable[[str], list[str]], text: str, expected: str
) -> None:
    """Line, key, value and what is allowed."""
    start = "" if text.startswith("[[") else START.replace('part = "mine"\n', "") + 'part = "m"\n'
    if text.startswith("part"):
        start = START.replace('part = "mine"\n', "why = 'x'\n")
    assert problems(start + text) == [expected]


@pytest.mark.parametrize(
    ("text", "beginning", "allowed"),
    [
        (
            'stack = "vlm"',
            '"vlm" is not a stack (did you mean vllm?); allowed are vllm, ',
            "custom",
        ),
        (
            'rest = "zqm"',
            '"zqm" is not a role of a port; allowed are api, metrics, ',
            "kv-transfer",
        ),
        (
            'ports = [{ role = "api", env = ["PROT"] }]',
            '"PROT" is not a variable that vllmwall reads (did you mean PORT?); allowed are ',
            "UVICORN_PORT",
        ),
    ],
)
def test_a_name_that_does_not_exist_is_answered_with_those_that_do(
    problems: Callable[[str], list[str]], text: str, beginning: str, allowed: str
) -> None:
    """With a guess where one is close."""
    (problem,) = problems(START + text)
    message = problem.split(": ", 2)[2]
    assert message.startswith(beginning)
    assert allowed in message.rpartition("allowed are ")[2].split(", ")


def test_two_rows_of_one_part_are_refused(write: Callable[..., Path]) -> None:
    """Also where the other is ours; the place of the first is told."""
    main = write(START)
    other = write(
        START + '[[program]]\nstack = "tgi"\npart = "router"\nprograms = ["xy"]', "conf.d/b.toml"
    )
    with pytest.raises(ConfigError) as caught:
        load(main)
    assert [str(problem) for problem in caught.value.problems] == [
        f'{other}:2: program[0].part: "mine" is not unique: it is also in {main}:2',
        f'{other}:6: program[1].part: "router" is not unique: it is also in the rows of vllmwall '
        "itself: see vllmwall/recognize/stacks.toml",
    ]


def test_without_rows_there_are_none(loaded: Callable[[str], Config]) -> None:
    """An empty file."""
    assert loaded("").rows() == ()
