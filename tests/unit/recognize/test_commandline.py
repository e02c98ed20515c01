"""Command lines as Python and argparse read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vllmwall.recognize.commandline import Command, read_command, read_flags


@pytest.mark.parametrize(
    ("line", "command"),
    [
        ("", Command()),
        ("/usr/bin/nginx -g x", Command("nginx", args=("-g", "x"))),
        ("python3", Command("python3")),
        ("python3 -u -X dev a/b.py x", Command("python3", script="a/b.py", args=("x",))),
        ("python3 -I -m a.b --x", Command("python3", module="a.b", args=("--x",))),
        ("python3 -ma.b c", Command("python3", module="a.b", args=("c",))),
        ("python3 -c code c", Command("python3", code="code", args=("c",))),
        ("python3 -m", Command("python3")),
        ("pypy3 s", Command("pypy3", script="s")),
    ],
)
def test_programs(line: str, command: Command) -> None:
    """The interpreter's own options come before the program."""
    assert read_command(tuple(line.split())) == command


def test_names_and_words() -> None:
    """The name is the script's or the file's; words end at the first flag."""
    assert read_command(("python3", "/v/bin/vllm", "serve", "m", "--x", "y")).name == "vllm"
    assert read_command(("python3", "-m", "vllm")).name == ""
    assert read_command(("a", "b", "c", "-d", "e")).words == ("b", "c")
    assert read_command(("a", "b")).words == ("b",)


def test_modules_by_name_and_by_file() -> None:
    """``-m a.b``, ``a/b.py`` and ``a/b/__main__.py`` are the same program."""
    for line in (
        "python3 -m a.b",
        "python3 -m a.b.__main__",
        "python3 /s/a/b.py",
        "python3 /s/a/b/__main__.py",
    ):
        assert read_command(tuple(line.split())).runs("a.b"), line
    assert not read_command(("python3", "/s/ba/b.py")).runs("a.b")
    assert not read_command(("python3", "-m", "a.bc")).runs("a.b")


NAMES = ("port", "portal-size", "host", "kv-config", "fast", "size")


@pytest.mark.parametrize(
    ("line", "name", "value"),
    [
        ("--port 1", "port", "1"),
        ("--port=1", "port", "1"),
        ("--port 1 --port 2", "port", "2"),
        ("--kv_config x", "kv-config", "x"),
        ("--kv x", "kv-config", "x"),
        ("--port 7 --portal-size 9", "port", "7"),
        ("--po 7", "port", None),
        ("-s 5", "size", "5"),
        ("-s=5", "size", "5"),
        ("-z 5", "size", None),
        ("--other 5", "size", None),
        ("--fast", "fast", ""),
        ("--fast --host h", "fast", ""),
        ("--size -3", "size", "-3"),
        ("--no-fast", "fast", "false"),
        ("-- --port 1", "port", None),
    ],
)
def test_flags(line: str, name: str, value: str | None) -> None:
    """Underscores, beginnings, repeats, short names, switches and ``--``."""
    assert read_flags(tuple(line.split()), NAMES, {"-s": "size"}).text(name) == value


def test_settings_lie_below_flags() -> None:
    """A settings file fills what the command line does not say; unknown keys are left out."""
    flags = read_flags(("--port", "1"), NAMES, settings={"port": "2", "host": "h", "x": "y"})
    assert (flags.text("port"), flags.text("host"), flags.text("x")) == ("1", "h", None)


def test_values() -> None:
    """Numbers are digits only; switches can be turned off by word; objects are JSON."""
    line = (
        "--port",
        "80a",
        "--size",
        "12",
        "--fast=False",
        "--host",
        "--kv-config",
        '{"a": 1}',
        "--kv-config.b",
        "2",
    )
    flags = read_flags(line, NAMES)
    assert (flags.number("port"), flags.number("size"), flags.number("x")) == (None, 12, None)
    assert (flags.is_on("fast"), flags.is_on("host"), flags.is_on("x")) == (False, True, False)
    assert flags.object("kv-config") == {"a": 1, "b": "2"}
    assert flags.object("size") == {}
    assert flags.object("host") == {}


@pytest.mark.parametrize("text", ["9" * 5000, "²", "١٢", "-1", "1e3", " "])
def test_digit_like_words_are_no_numbers(text: str) -> None:
    """Python's int() refuses some of them with an error, and a user may write any."""
    assert read_flags(("--port", text), NAMES).number("port") is None


@given(st.lists(st.text(max_size=8), max_size=8))
def test_any_words_are_read_without_an_error(words: list[str]) -> None:
    """Command lines are written by users: nothing in them may raise."""
    command = read_command(tuple(words))
    flags = read_flags(command.args, NAMES, {"-s": "size"})
    numbers = [flags.number(name) for name in NAMES]
    assert all(number >= 0 for number in numbers if number is not None)
    assert flags.object("kv-config") is not None
