"""Manners that all commands share: help, suggestions, common options and failures."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import click
import pytest
from pydantic import TypeAdapter

from tests.support.scripts import packaging
from tests.unit.cli.conftest import Daemon, Run
from vllmwall import __version__
from vllmwall.cli import command
from vllmwall.cli import status as status_module
from vllmwall.cli.command_line import one_line
from vllmwall.cli.exit_codes import ERRORS, Exit
from vllmwall.cli.failures import ErrorAnswer

FORBIDDEN = re.compile(
    r"\b(whom?|whose|whoever|anew|mend|knock\w*|stands|stood|nobody|somebody|he|his|shall)\b"
)


def every_command() -> Iterator[tuple[str, ...]]:
    """The words of every command and group, hidden ones left out."""
    yield ()
    context = click.Context(command, info_name="vllmwall")
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        yield (name,)
        if isinstance(found, click.Group):
            yield from ((name, inner) for inner in found.list_commands(context))


COMMANDS = list(every_command())


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_fits_80_columns_in_plain_english(run: Run, words: tuple[str, ...]) -> None:
    """Nothing is cut with dots, and nobody has to guess what a sentence means."""
    done = run(*words, "--help")
    assert (0, "") == (done.returncode, done.stderr)
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "..." not in re.sub(r"[A-Z]+]?[.]{3}|[.]{3}]", "", done.stdout)  # CIDRS... is a list
    assert [] == FORBIDDEN.findall(done.stdout)
    assert done.stdout == run(*words, "-h").stdout


def test_help_groups_commands_with_their_whole_first_sentence(run: Run) -> None:
    """Each in one line, below what it is for."""
    text = run("--help").stdout
    titles = [
        line for line in text.splitlines() if line in ("Look:", "Explain:", "Change:", "Run:")
    ]
    assert ["Look:", "Explain:", "Change:", "Run:"] == titles
    context = click.Context(command, info_name="vllmwall")
    for name in command.list_commands(context):
        found = command.get_command(context, name)
        assert found is not None
        assert f"  {name:<13}  {one_line(found)}\n" in text
    assert "rollback" not in text


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (["staus"], "No such command 'staus'.", "Did you mean 'status'?"),
        (["peers", "lst"], "No such command 'lst'.", "Did you mean 'list'?"),
        (["status", "--jsno"], "No such option '--jsno'.", "Did you mean '--json'?"),
        (["--sockt", "/x", "status"], "No such option '--sockt'.", "Did you mean '--socket'?"),
        (["xyzzy"], "No such command 'xyzzy'.", "See: vllmwall --help"),
        (["ban"], "Missing argument 'CIDRS...'.", "See: vllmwall ban --help"),
    ],
)
def test_a_typo_is_answered_with_a_suggestion(
    run: Run, arguments: list[str], message: str, hint: str
) -> None:
    """For commands and options, in text and as JSON, with the same status."""
    done = run(*arguments)
    said = f"vllmwall: {message}\n  hint: {hint}\n"
    assert (2, "", said) == (done.returncode, done.stdout, done.stderr)
    for asked in (["--json", *arguments], [*arguments, "--json"]):
        done = run(*asked)
        assert (2, "") == (done.returncode, done.stderr)
        error = {"code": "usage", "message": message, "hint": hint}
        assert {"error": error} == json.loads(done.stdout)


def test_the_version(run: Run) -> None:
    """Short and long."""
    assert run("-V").stdout == run("--version").stdout
    assert __version__ in run("-V").stdout


BANS = {"version": 1, "bans": [], "enforced": True, "problems": [], "severed": 0}


@pytest.mark.parametrize("before", [True, False])
def test_common_options_work_before_and_after_the_command(
    daemon: Daemon, run: Run, before: bool
) -> None:
    """Also below a group; the socket of the line wins over the environment's."""
    daemon.answers("bans.list", BANS)
    daemon.answers("peers.list", {"version": 1, "networks": [], "sources": []})
    options = ["--json", "--socket", str(daemon.path), "--color", "always"]
    for words in (["bans"], ["peers", "list"]):
        line = [*options, *words] if before else [*words, *options]
        done = run(*line, VLLMWALL_SOCKET="/nowhere")
        assert (0, "") == (done.returncode, done.stderr)
        assert 1 == json.loads(done.stdout)["version"]
    line = [*options[3:], "bans"] if before else ["bans", *options[3:]]
    assert "\x1b[" in run(*line).stdout
    assert ["bans.list", "peers.list", "bans.list"] == [one["command"] for one in daemon.asked]


def test_options_of_a_job_are_its_own(run: Run) -> None:
    """`run` reads none of what comes after its command."""
    done = run("run", "nonesuch", "--json", "--bogus")
    assert (127, "") == (done.returncode, done.stdout)
    done = run("run", "--bogus", "nonesuch", "--json")
    assert (2, "") == (done.returncode, done.stdout)
    assert "no-such-command" == json.loads(run("run", "--json", "nonesuch").stdout)["error"]["code"]


FAILURES = [
    ("not-running", 3, ["bans"]),
    ("not-running", 3, ["status"]),
    ("usage", 2, ["peers", "add", "10.0.0.0/8", "--for", "1h", "--save"]),
    ("usage", 2, ["peers", "add", "10.0.0.0/8", "--for", "1x"]),
    ("usage", 2, ["explain", "192.0.2.9", "80", "--proto", "sctp"]),
    ("usage", 2, ["daemon", "--socket", "/x"]),
    ("failed", 1, ["explain", "no-such-host.invalid", "80"]),
    ("failed", 1, ["recognize", __file__]),
    ("config", 2, ["plan", "--config", "BROKEN"]),
    ("no-such-command", 127, ["run", "nonesuch"]),
    ("not-executable", 126, ["run", "/etc/passwd"]),
]


@pytest.mark.parametrize(("code", "status", "arguments"), FAILURES)
def test_a_failure_is_one_object_under_json(
    run: Run, tmp_path: Path, code: str, status: int, arguments: list[str]
) -> None:
    """In the published shape, on stdout alone, with the exit status that it has in text."""
    broken = tmp_path / "broken.toml"
    broken.write_text("mode = 7\n")
    broken.chmod(0o600)
    line = [str(broken) if word == "BROKEN" else word for word in arguments]
    plain, done = run(*line), run("--json", *line)
    assert (status, "") == (plain.returncode, plain.stdout)
    assert (status, "") == (done.returncode, done.stderr)
    error = TypeAdapter(ErrorAnswer).validate_json(done.stdout).error
    assert (code, status) == (error.code, ERRORS[error.code])
    said = f"vllmwall: {error.message}\n"
    assert plain.stderr == said + (f"  hint: {error.hint}\n" if error.hint else "")


@pytest.mark.parametrize(("code", "status"), [("denied", 4), ("failed", 1), ("of-tomorrow", 1)])
def test_what_the_daemon_refuses_keeps_its_code_message_and_hint(
    daemon: Daemon, run: Run, code: str, status: int
) -> None:
    """Also a code that this client does not know."""
    daemon.refuses("reload", code, "it is so", "Do that.")
    done = run("reload", "--json")
    assert (status, "") == (done.returncode, done.stderr)
    error = {"code": code, "message": "it is so", "hint": "Do that."}
    assert {"error": error} == json.loads(done.stdout)
    done = run("reload")
    said = "vllmwall: it is so\n  hint: Do that.\n"
    assert (status, said) == (done.returncode, done.stderr)


def test_an_internal_error_is_an_object_too(
    daemon: Daemon, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the traceback on stderr, for the bug report."""
    monkeypatch.setattr(status_module, "ask_if_running", lambda *_: {}["no such key"])
    plain, done = run("status"), run("status", "--json")
    assert (1, 1) == (plain.returncode, done.returncode)
    assert "Traceback" in done.stderr
    error = TypeAdapter(ErrorAnswer).validate_json(done.stdout).error
    assert ("internal", "internal error: KeyError: 'no such key'") == (error.code, error.message)
    assert plain.stderr.endswith(f"vllmwall: {error.message}\n  hint: {error.hint}\n")


def test_every_status_is_documented() -> None:
    """In one place."""
    assert set(Exit) == set(packaging("cli_docs").MEANINGS)


def test_the_configurations_schema_is_one(run: Run) -> None:
    """For editors."""
    schema = json.loads(run("config", "schema").stdout)
    assert "https://json-schema.org/draft/2020-12/schema" == schema["$schema"]
    assert {"mode", "peers"} <= schema["properties"].keys()
