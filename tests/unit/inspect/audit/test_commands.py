"""Command lines, settings files and environments: what is read of them, and what never is."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.inspect.audit.conftest import Start
from vllmwall.inspect.audit.collect.commands import (
    command_line,
    environment,
    is_title,
    secrets_of,
    without_secrets,
)
from vllmwall.inspect.audit.rules import knobs
from vllmwall.inspect.audit.types import SET
from vllmwall.model import Process, Stack

CANARY = "sk-CANARY-7f3a"
KNOWN = knobs().flags_of(Stack.VLLM)


@pytest.mark.parametrize(
    "words",
    [
        ("--api-key", CANARY),
        (f"--api-key={CANARY}",),
        ("--api_key", CANARY),
        ("--api-k", CANARY),
        ("--api-key", "one", CANARY, "three"),
        ("--hf-token", CANARY),
        ("--port", "1", "--api-key", CANARY, "--host", "h"),
    ],
)
def test_the_value_of_a_secret_flag_is_dropped_and_its_presence_kept(
    words: tuple[str, ...],
) -> None:
    """However it is written."""
    kept, found = without_secrets(words, KNOWN)
    assert CANARY not in repr(kept)
    assert len(kept) == len(words)
    assert found


def test_a_secret_that_looks_like_a_flag_is_dropped() -> None:
    """argparse would refuse it, so no key is in use; the text stays secret."""
    kept, found = without_secrets(("--api-key", f"-{CANARY}"), KNOWN)
    assert CANARY not in repr(kept)
    assert 2 == len(kept)
    assert not found


@given(st.lists(st.sampled_from(["--api-key", "--port", "--hf-token=x", "a", "-tp", "8", "--"])))
def test_dropping_secrets_never_fails_and_keeps_the_words_places(words: list[str]) -> None:
    """Command lines are written by users."""
    kept, _ = without_secrets(tuple(words), KNOWN)
    assert len(kept) == len(words)
    assert set(kept) <= {*words, SET, f"--hf-token={SET}"}


def test_flags_of_a_real_process_are_read(start: Start) -> None:
    """From /proc, with the key gone."""
    process = start("serve", "m", "--api-key", CANARY, "--trust-remote-code", "--host=0.0.0.0")
    found = command_line(process, Stack.VLLM)
    assert found.complete
    assert found.flags.is_on("trust-remote-code")
    assert found.flags.text("host") == "0.0.0.0"
    assert found.flags.text("api-key") == SET
    assert found.secrets == ("--api-key",)


def test_the_rust_frontends_key_is_found_in_its_json(start: Start) -> None:
    """`vllm-rs frontend --args-json` carries the whole configuration."""
    text = '{"api_key": ["' + CANARY + '"]}'
    process = start("frontend", "--listen-fd", "3", "--args-json", text, name="vllm-rs")
    assert secrets_of(process, Stack.VLLM) == ("--args-json (api_key)",)
    clean = start("frontend", "--args-json", '{"api_key": null}', name="vllm-rs")
    assert secrets_of(clean, Stack.VLLM) == ()


def test_a_settings_file_counts_like_the_command_line(start: Start, tmp_path: Path) -> None:
    """`--config FILE`, with lists, switches and keys in it."""
    (tmp_path / "c.yaml").write_text(
        f"api_key: {CANARY}\ntrust_remote_code: true\nenable-prompt-embeds: false\n"
        "allowed-origins: ['*']\nunknown: 1\n"
    )
    found = command_line(start("serve", "m", "--config", "c.yaml"), Stack.VLLM)
    assert found.complete
    assert found.secrets == ()
    assert found.flags.text("api-key") == SET
    assert found.flags.is_on("trust-remote-code")
    assert not found.flags.is_on("enable-prompt-embeds")
    assert found.flags.text("allowed-origins") == '["*"]'


@pytest.mark.parametrize("text", [None, "- a list", "a: [", "x" * 70000])
def test_a_settings_file_that_cannot_be_read_leaves_everything_open(
    start: Start, tmp_path: Path, text: str | None
) -> None:
    """What is absent from the command line may stand in it."""
    if text is not None:
        (tmp_path / "c.yaml").write_text(text)
    assert not command_line(start("serve", "m", "--config", "c.yaml"), Stack.VLLM).complete


def test_a_settings_file_cannot_unfold_without_end(start: Start, tmp_path: Path) -> None:
    """Aliases of aliases: forty lines that would be a thousand billion words."""
    lines = ["a0: &a0 [x, x, x, x]"]
    lines += [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 40)]
    (tmp_path / "c.yaml").write_text("\n".join([*lines, "allowed-origins: [*a39, '*']"]))
    found = command_line(start("serve", "m", "--config", "c.yaml"), Stack.VLLM)
    assert found.flags.text("allowed-origins") == '["\\u2026", "*"]'


def test_an_environment_is_read_whole_and_only_where_it_is_asked_for(start: Start) -> None:
    """No other variable leaves the reader, and of a key only that it is set."""
    env = {"VLLM_API_KEY": CANARY, "OTHER_TOKEN": CANARY, "VLLM_SERVER_DEV_MODE": "1", "EMPTY": ""}
    found = environment(start("serve", env=env).pid)
    assert found.complete
    assert found.values["VLLM_SERVER_DEV_MODE"] == "1"
    assert found.values["VLLM_API_KEY"] == SET
    assert "OTHER_TOKEN" not in found.values
    assert CANARY not in repr(found)


@pytest.mark.parametrize("keep", [0, 40])
def test_an_environment_that_a_title_overwrote_is_not_whole(start: Start, keep: int) -> None:
    """All of it, or all but its end."""
    env = {"VLLM_API_KEY": CANARY, "A": "b" * 60, "VLLM_SERVER_DEV_MODE": "1"}
    process = start("serve", "m", env=env, rename="VLLM::EngineCore", keep=keep)
    assert process.argv == ("VLLM::EngineCore",)
    assert not environment(process.pid).complete


def test_a_process_that_is_gone_has_no_environment() -> None:
    """Not an empty one."""
    found = environment(2**22 + 1)
    assert (dict(found.values), found.complete) == ({}, False)


def test_a_process_without_any_variable_may_have_been_wiped() -> None:
    """Unknown, to be on the safe side."""
    assert not environment(2).complete  # a kernel thread has none


@pytest.mark.parametrize(
    ("argv", "expected"),
    [
        (("python3", "train.py"), False),
        (("/usr/bin/vllm", "serve", "a::b"), False),
        (("VLLM::Worker_TP0",), True),
        (("job that renamed itself",), True),
        ((), True),
    ],
)
def test_a_title_is_told_from_a_command(argv: tuple[str, ...], expected: bool) -> None:
    """A script without any flag of ours was still read; a title was not."""
    process = Process(1, 0, "x", argv=argv)
    assert is_title(process) is expected
    assert secrets_of(process, Stack.VLLM) == ()


@pytest.mark.parametrize(
    ("words", "flag"),
    [
        (("--seed-token", CANARY), "--seed-token"),
        ((f"--seed_token={CANARY}",), "--seed-token"),
        (("--seed-t", CANARY), "--seed-token"),
        (("--watermark-config", f'{{"key": "{CANARY}"}}'), "--watermark-config"),
        (("--watermark-config.key", CANARY), "--watermark-config"),
        ((f"--watermark-config.key={CANARY}",), "--watermark-config"),
    ],
)
def test_secrets_of_vllm_0_33_are_named_and_dropped(
    start: Start, words: tuple[str, ...], flag: str
) -> None:
    """Of the server that has them on its command line."""
    process = start("preload", "m", "--seed-listen-port", "7100", *words)
    assert secrets_of(process, Stack.VLLM) == (flag,)
    assert CANARY not in repr(command_line(process, Stack.VLLM).flags._values)


def test_flags_that_secrets_begin_with_are_no_secrets(start: Start) -> None:
    """argparse takes a whole name before a beginning."""
    process = start("serve", "m", "--seed", "42", "--watermark", "0.1")
    assert secrets_of(process, Stack.VLLM) == ()
