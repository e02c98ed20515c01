"""Files that users name: which of them are read, and what is made of their contents."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from vllmwall.linux.bounded import NotAllowedError
from vllmwall.model import Process
from vllmwall.observe.files import (
    all_settings,
    known_settings,
    ray_directories,
    ray_ports,
    settings_path,
    text_of,
)


def serve(path: Path | str) -> list[str]:
    return ["python3", "/usr/bin/vllm", "serve", "m", "--config", str(path)]


def test_the_port_is_read_from_the_settings_file(tmp_path: Path) -> None:
    """``vllm serve --config f.yaml``: the port is nowhere else."""
    (tmp_path / "f.yaml").write_text("port: 9123\nhost: 10.0.0.1\napi_key: secret\n")
    path = settings_path(serve(tmp_path / "f.yaml"))
    assert path is not None
    assert {"port": "9123", "host": "10.0.0.1"} == known_settings(path)


def test_the_last_settings_file_wins() -> None:
    """As argparse does it."""
    assert "b.yaml" == settings_path([*serve("a.yaml"), "--config", "b.yaml"])


def test_no_other_program_has_a_settings_file() -> None:
    """``--config`` of anything else is not read at all; ours is TOML."""
    assert settings_path(["nginx", "--config", "f.yaml"]) is None
    argv = ["python3", "-I", "/usr/lib/vllmwall/main.py", "daemon", "--config", "f.toml"]
    assert settings_path(argv) is None


@pytest.mark.parametrize("text", ["", "[]", "- port: 1", "\0", "a: {b: 1}", "a: !!binary eA=="])
def test_a_file_without_our_settings_gives_none(tmp_path: Path, text: str) -> None:
    """It is a mapping with other keys, or no mapping."""
    (tmp_path / "f.yaml").write_text(text)
    try:
        assert {} == known_settings(str(tmp_path / "f.yaml"))
    except Exception as error:
        assert type(error).__name__ in {"NotAllowedError", "ReaderError"}


def test_aliases_are_read(tmp_path: Path) -> None:
    """However many: the process that reads has limits of its own."""
    lines = ["common: &c {a: 1}", *(f"other{number}: *c" for number in range(100)), "port: 9123"]
    (tmp_path / "f.yaml").write_text("\n".join(lines))
    assert "9123" == known_settings(str(tmp_path / "f.yaml"))["port"]


def test_a_value_of_our_settings_is_short(tmp_path: Path) -> None:
    """What comes back from a file stays in the daemon's memory."""
    (tmp_path / "f.yaml").write_text(f"model: {'x' * 60_000}\nport: 0x{'f' * 100}\n")
    found = known_settings(str(tmp_path / "f.yaml"))
    assert ["model"] == list(found)
    assert 1024 == len(found["model"])


def test_nested_settings_are_cut(tmp_path: Path) -> None:
    """An audit reads all of them; aliases let a small file unfold without end."""
    (tmp_path / "f.yaml").write_text("a: &a {b: {c: 1}}\nd: [*a, 2]\n")
    assert {"a": {"b": "…"}, "d": ["…", 2]} == all_settings(str(tmp_path / "f.yaml"))


def test_only_small_plain_files_are_read(tmp_path: Path) -> None:
    """open() of a FIFO without a writer blocks for ever, /dev/zero never ends."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "huge").write_text("port: 1\n" + "#" * 70_000)
    for path in (tmp_path / "pipe", tmp_path / "huge", tmp_path, Path("/dev/zero")):
        with pytest.raises((NotAllowedError, IsADirectoryError)):
            text_of(str(path))


def test_rays_port_files_are_read(tmp_path: Path) -> None:
    """Ray's random ports are in its session directory and nowhere else."""
    session = tmp_path / "session_2026-01-01_1"
    session.mkdir()
    (session / "gcs_server_port_abc").write_text("6379\n")
    for number, text in enumerate(("not a port", "²", "٣", "9" * 5000, "-1", "")):
        (session / f"metrics_agent_port_{number}").write_text(text)
    (session / "logs").mkdir()
    raylet = Process(1, 1, "raylet", ("raylet", f"--raylet_socket_name={session}/s/r"))
    other = Process(1, 1, "bash", ("bash", f"--log_dir={session}/logs"))
    assert (frozenset({str(session)}), frozenset()) == tuple(map(ray_directories, (raylet, other)))
    assert {"gcs_server_port": [6379]} == ray_ports(str(session))


def test_a_session_with_very_many_files_is_read_in_part(tmp_path: Path) -> None:
    """A user can make millions of them."""
    for number in range(200):
        (tmp_path / f"gcs_server_port_{number}").write_text(str(number + 1))
    assert 64 == len(ray_ports(str(tmp_path))["gcs_server_port"])
