"""Snapshots as files: nothing secret leaves the node in them."""

from __future__ import annotations

import json
from ipaddress import ip_address
from pathlib import Path

import pytest

from vllmwall.model import Listener, Node, Process, Proto, RaySession, Stack
from vllmwall.observe.redaction import redacted_argv, unix_path
from vllmwall.observe.snapshot import SnapshotError, dump, load, read

SECRET = "hunter2-S3CR3T"
X = "<redacted>"


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "7", "{}", '{"processes": 3, "listeners": []}',
             '{"format": "vllmwall-snapshot", "version": 99, "host": {}, "processes": [], '
             '"listeners": [], "ray_sessions": []}',
             '{"format": "other", "version": 1, "host": {}, "processes": [], "listeners": [], '
             '"ray_sessions": []}',
             '{"format": "vllmwall-snapshot", "version": 1, "host": {}, '
             '"processes": [{"pid": "1", "ppid": 0, "comm": ""}], "listeners": [], '
             '"ray_sessions": []}',
             '{"format": "vllmwall-snapshot", "version": 1}'],
)  # fmt: skip
def test_other_files_are_refused_by_name(tmp_path: Path, text: str) -> None:
    """A file that is no snapshot is an error that names the file."""
    path = tmp_path / "x.json"
    path.write_text(text)
    with pytest.raises(SnapshotError, match=r"x\.json"):
        load(path)


def full_node() -> Node:
    """A node with something in every field."""
    process = Process(
        pid=10, ppid=1, comm="vllm", argv=("VLLM::EngineCore",), start_time=5,
        exe="/home/bob/venv/bin/python3", uid=1000, namespace=3, cgroup="/a.service",
        env={"RANK": "0", "MASTER_ADDR": SECRET, "HF_TOKEN": SECRET},
        threads={"pt_tcpstore_uv": 1, SECRET: 2, "python3": 1},
        libraries=frozenset({"torch"}), settings={"port": "1", "api-key": SECRET, "host": SECRET},
        exec_argv=("/home/bob/venv/bin/python3", "/home/bob/venv/bin/vllm", "serve", "org/m",
                   "--api-key", SECRET),
        birth_ppid=2, remembered=Stack.VLLM,
    )  # fmt: skip
    listeners = (
        Listener(3, Proto.TCP, 80, ip_address("::ffff:10.0.0.1"), inode=1, pids=(10,), backlog=-1,
                 queue_limit=4096, v6only=True, order=1.5, uid=1000),
        Listener(3, Proto.UNIX, 0, path=f"/home/bob/{SECRET}/x.sock", pids=(10,)),
    )  # fmt: skip
    session = RaySession("/home/bob/ray/session_2026-01-02_03-04-05_1_2", {"gcs": (1, 2)})
    other = Process(11, 1, "x", ("/home/bob/x", SECRET), alive=False)
    return Node({10: process, 11: other}, listeners, (session,))


def test_snapshot_keeps_what_recognition_reads_and_no_secret() -> None:
    """Names, numbers and addresses stay; home directories, tokens and unknown words do not."""
    text = json.dumps(dump(full_node(), host_facts={"kernel": "6.1"}))
    assert SECRET not in text
    assert "bob" not in text
    node = read(text)
    process = node.processes[10]
    assert process.exec_argv == ("python3", "vllm", "serve", "m", f"--{X}", X)
    assert process.threads == {"pt_tcpstore_uv": 1, "other": 3}
    assert process.env == {"RANK": "0", "MASTER_ADDR": X}
    assert process.settings == {"port": "1", "host": X}
    assert (process.libraries, process.remembered) == (frozenset({"torch"}), Stack.VLLM)
    assert node.listeners[0] == full_node().listeners[0]
    assert node.listeners[1].path == ".../x.sock"
    assert node.ray_sessions[0].ports == {"gcs": (1, 2)}
    assert not node.processes[11].alive


def test_a_snapshot_of_a_snapshot_is_the_same(tmp_path: Path) -> None:
    """Redaction of what is redacted changes nothing, and files come back as they went."""
    first = dump(full_node(), host_facts={})
    path = tmp_path / "s.json"
    path.write_text(json.dumps(first))
    assert dump(load(path), host_facts={}) == first


@pytest.mark.parametrize(
    ("line", "shown"),
    [
        (["/x/vllm", "serve", "--api-key", SECRET], ["vllm", "serve", f"--{X}", X]),
        (["/x/vllm", "serve", f"--api-key={SECRET}"], ["vllm", "serve", f"--{X}={X}"]),
        (["vllm", "preload", "--seed-listen-port", "7100", "--seed-token", SECRET],
         ["vllm", "preload", "--seed-listen-port", "7100", f"--{X}", X]),
        (["vllm", "preload", "--seed-t", "123456"], ["vllm", "preload", f"--{X}", X]),
        (["vllm", "serve", "--watermark-config", f'{{"key": "{SECRET}"}}'],
         ["vllm", "serve", f"--{X}", X]),
        (["vllm", "serve", f"--watermark-config.key={SECRET}"], ["vllm", "serve", f"--{X}={X}"]),
        (["vllm", "serve", "--port", SECRET], ["vllm", "serve", "--port", X]),
        (["vllm", "serve", f"--host={SECRET}"], ["vllm", "serve", f"--host={X}"]),
        (["vllm", "serve", "--host", "10.0.0.1"], ["vllm", "serve", "--host", "10.0.0.1"]),
        (["vllm", "serve", "--por", "9001"], ["vllm", "serve", "--por", "9001"]),
        (["vllm", "serve", "--no-headless"], ["vllm", "serve", "--no-headless"]),
        (["vllm", "serve", "-dp", "2", "-x", SECRET], ["vllm", "serve", "-dp", "2", f"-{X}", X]),
        (["vllm", "serve", f"https://u:{SECRET}@h"], ["vllm", "serve", X]),
        (["vllm", "serve", f"https://u:{SECRET}@h/m"], ["vllm", "serve", "m"]),
        (["vllm", SECRET], ["vllm", X]),
        (["vllm-rs", "frontend", "--args-json", f'{{"k": "{SECRET}"}}'],
         ["vllm-rs", "frontend", f"--{X}", X]),
        (["python3", "-u", "-W", SECRET, "-m", "a.b", SECRET],
         ["python3", "-u", f"-{X}", X, "-m", "a.b", X]),
        (["python3", "-m", "a.b", SECRET], ["python3", "-m", "a.b", X]),
        (["python3", "-m", SECRET], ["python3", "-m", X]),
        (["python3", "-c", f"k={SECRET}"], ["python3", "-c", X]),
        (["python3", "-c", f"from multiprocessing.spawn import {SECRET}"],
         ["python3", "-c", "from multiprocessing.spawn import main"]),
        (["python3", "/h/ray/dashboard/agent.py", "x.py"],
         ["python3", "/ray/dashboard/agent.py", "x.py"]),
        (["python3", "/h/lmcache_server", "0.0.0.0", "65432"],
         ["python3", "lmcache_server", "0.0.0.0", "65432"]),
        (["python3", "t.py", "12345"], ["python3", "t.py", X]),
        (["x", f"/tmp/ray/session_2026-01-02_03-04-05_1_2/{SECRET}"], ["x", X]),
        (["x", f"--dir=/h/session_2026-01-02_03-04-05_1_2/{SECRET}"],
         ["x", f"--{X}=session_2026-01-02_03-04-05_1_2"]),
        ([f"ray-dashboard-Job-0 (python {SECRET})", SECRET], ["ray-dashboard-Job-0", X]),
        ([f"VLLM::Worker {SECRET}"], ["VLLM::Worker"]),
        ([f"{SECRET} x"], [X]),
        ([], []),
    ],
)  # fmt: skip
def test_command_lines_keep_allowed_words_in_their_place(line: list[str], shown: list[str]) -> None:
    """By allow-list of names and shapes; the number of words stays."""
    assert list(redacted_argv(tuple(line))) == shown


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        ("--openai-port 8000", "--openai-port 8000"),
        ("--server.port=8501", "--server.port=8501"),
        ("-port 8080", "-port 8080"),
        ("-http-port=8080", "-http-port=8080"),
        ("--bind=localhost:80", "--bind=localhost:80"),
        ("--bind :80", "--bind :80"),
        (f"--bind {SECRET}.internal:80", f"--bind {X}:80"),
        (f"--api-port {SECRET}", f"--api-port {X}"),
        (f"--report {SECRET}", f"--{X} {X}"),
        (f"-password={SECRET}", f"-{X}"),
    ],
)
def test_a_port_is_kept_under_any_flag_that_is_called_one(words: str, shown: str) -> None:
    """Recognition reads it, also of a program that erased its command line since."""
    assert redacted_argv(("server", *words.split()))[1:] == tuple(shown.split())


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ('{"endpoint": "tcp://*:5557", "topic": "s", "kv_port": 7}',
         '{"endpoint": "tcp://*:5557", "kv_port": "7"}'),
        (f'{{"endpoint": "tcp://u:{SECRET}@h:1"}}', f'{{"endpoint": "{X}"}}'),
        ("[1]", X),
        (SECRET, X),
    ],
)  # fmt: skip
def test_json_flags_keep_their_ports(value: str, shown: str) -> None:
    """Of connector settings only endpoints and ports."""
    assert redacted_argv(("vllm", "--kv-events-config", value))[2] == shown


def test_dotted_flags_keep_their_ports() -> None:
    """``--kv-events-config.endpoint`` is read like the JSON; another key is not shown."""
    line = (
        "vllm",
        "--kv-events-config.endpoint",
        "tcp://*:5557",
        "--model",
        f"s3://{SECRET}/m",
        "--uds",
        "/home/bob/v.sock",
    )
    assert redacted_argv(line)[2::2] == ("tcp://*:5557", "m", ".../v.sock")


def test_unix_paths() -> None:
    """Base names only; abstract names only where they are plain."""
    assert [unix_path(path) for path in ("", "@abc", f"@{SECRET}/ä", "/h/x")] == [
        "", "@abc", f"@{X}", ".../x"
    ]  # fmt: skip
