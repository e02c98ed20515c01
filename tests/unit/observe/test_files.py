"""Files that users name and root reads: what may be read, and what may not."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.sharing import open_to_all_users
from vllmwall.model import Process
from vllmwall.observe.files import ray_sessions, read_as, settings_of

NOBODY = 65534


@pytest.fixture
def nobody(tmp_path: Path) -> Iterator[int]:
    """A process of another user."""
    open_to_all_users(tmp_path)
    child = subprocess.Popen(["sleep", "100"], user=NOBODY, cwd="/")
    yield child.pid
    child.kill()
    child.wait()


def serve(path: Path | str) -> list[str]:
    return ["python3", "/usr/bin/vllm", "serve", "m", "--config", str(path)]


def test_the_port_is_read_from_the_settings_file(tmp_path: Path) -> None:
    """``vllm serve --config f.yaml``: the port is nowhere else."""
    (tmp_path / "f.yaml").write_text("port: 9123\nhost: 10.0.0.1\napi_key: secret\n")
    found = settings_of(os.getpid(), serve(tmp_path / "f.yaml"))
    assert {"port": "9123", "host": "10.0.0.1"} == dict(found)


def test_the_last_settings_file_wins(tmp_path: Path) -> None:
    """As argparse does it."""
    (tmp_path / "a.yaml").write_text("port: 1\n")
    (tmp_path / "b.yaml").write_text("port: 2\n")
    argv = [*serve(tmp_path / "a.yaml"), "--config", str(tmp_path / "b.yaml")]
    assert "2" == settings_of(os.getpid(), argv)["port"]


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "port: [", "a: &a [*a]", "\0", "- port: 1"),
        # PyYAML raises what is no YAMLError for these.
        *("a: !!bool x", 'a: !!int ""', "a: !!timestamp x", "a: !!float ''", "? [a]\n: 1"),
        *(f"port: 0x{'f' * 6000}", f"port: {'9' * 6000}", "[" * 5000),
    ],
)
def test_a_file_that_is_no_mapping_gives_no_settings(tmp_path: Path, text: str) -> None:
    """Bad YAML costs its own process, and no pass fails for it."""
    (tmp_path / "f.yaml").write_text(text)
    assert {} == settings_of(os.getpid(), serve(tmp_path / "f.yaml"))


def test_nested_merges_are_not_read(tmp_path: Path) -> None:
    """They take PyYAML twice as long with each line; the daemon would stop for minutes."""
    lines = ["a0: &a0 {port: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [*a{n - 1}, *a{n - 1}]}}" for n in range(1, 40)]
    (tmp_path / "f.yaml").write_text("\n".join(lines))
    assert {} == settings_of(os.getpid(), serve(tmp_path / "f.yaml"))


def test_a_few_aliases_are_read(tmp_path: Path) -> None:
    """As people write them."""
    (tmp_path / "f.yaml").write_text("common: &c {a: 1}\nother: *c\nport: 9123\n")
    assert "9123" == settings_of(os.getpid(), serve(tmp_path / "f.yaml"))["port"]


def test_a_program_that_is_no_server_has_no_settings(tmp_path: Path) -> None:
    """``--config`` of anything else is not read at all."""
    (tmp_path / "f.yaml").write_text("port: 9123\n")
    assert {} == settings_of(os.getpid(), ["nginx", "--config", str(tmp_path / "f.yaml")])


def test_our_own_file_is_not_taken_for_one(tmp_path: Path) -> None:
    """Every daemon would load YAML for it."""
    (tmp_path / "f.yaml").write_text("port: 9\n")
    argv = ["python3", "-I", "/usr/lib/vllmwall/main.py", "daemon", "--config"]
    assert {} == settings_of(os.getpid(), [*argv, str(tmp_path / "f.yaml")])


def test_what_the_process_could_not_read_is_not_read_for_it(tmp_path: Path, nobody: int) -> None:
    """A link to a root-only file must not make root read it aloud."""
    secret = tmp_path / "secret"
    secret.write_text("port: 1234\n")
    secret.chmod(0o600)
    link = tmp_path / "link"
    link.symlink_to(secret)
    assert "" == read_as(nobody, str(link))
    secret.chmod(0o644)
    assert "port: 1234\n" == read_as(nobody, str(link))


def test_a_pipe_does_not_make_the_daemon_wait(tmp_path: Path) -> None:
    """open() of a FIFO without a writer blocks for ever."""
    os.mkfifo(tmp_path / "pipe")
    assert "" == read_as(os.getpid(), str(tmp_path / "pipe"))


def test_a_device_is_not_opened() -> None:
    """/dev/zero never ends."""
    assert "" == read_as(os.getpid(), "/dev/zero")


def test_a_huge_file_is_not_read(tmp_path: Path) -> None:
    """Memory of the daemon is not the user's."""
    (tmp_path / "f.yaml").write_text("port: 1\n" + "#" * 70_000)
    assert "" == read_as(os.getpid(), str(tmp_path / "f.yaml"))


def test_rays_port_files_are_read(tmp_path: Path) -> None:
    """Ray's random ports are in its session directory and nowhere else."""
    session = tmp_path / "session_2026-01-01_1"
    session.mkdir()
    (session / "gcs_server_port_abc").write_text("6379\n")
    for number, text in enumerate(("not a port", "²", "٣", "9" * 5000, "-1", "")):
        (session / f"metrics_agent_port_{number}").write_text(text)
    (session / "logs").mkdir()
    raylet = Process(os.getpid(), 1, "raylet", ("raylet", f"--raylet_socket_name={session}/s/r"))
    other = Process(os.getpid(), 1, "bash", ("bash", f"--log_dir={session}/logs"))
    [found] = ray_sessions([raylet, other])
    assert (str(session), {"gcs_server_port": (6379,)}) == (found.directory, dict(found.ports))
