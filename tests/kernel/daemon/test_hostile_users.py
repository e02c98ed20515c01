"""A user who wants to stop the daemon: nobody's data does, and nobody else's ports stay open."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.support.attacks import EXEC_MANY, MANY, MAPS, ODD, SLEEP
from tests.support.guarded import Guarded, eventually, guarded
from tests.support.hung_mount import USER, as_user, hung_mount
from tests.support.lab import Lab
from tests.support.sharing import folder_for_all_users
from vllmwall.engine.event_keys import EventKey

VICTIM = 29500


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that all users can reach."""
    with folder_for_all_users() as made:
        yield made


@pytest.fixture
def node(lab: Lab, folder: Path) -> Iterator[Guarded]:
    """A node whose daemon runs."""
    with guarded(lab, folder / "node") as made:
        yield made


def liar(node: Guarded, code: str, *words: str) -> subprocess.Popen[str]:
    """A process of a user that runs this code under these words."""
    return node.lab.node.popen(as_user([sys.executable, "-c", code, *words]))


def problems(node: Guarded) -> str:
    return json.dumps(node.ask("status")["reservations"])


def is_closed_soon(node: Guarded) -> None:
    """A port that another user's job opens now is closed to strangers."""
    victim = node.rank()
    victim.open("tcp", "0.0.0.0", VICTIM)

    def is_closed() -> bool:
        return node.lab.stranger.connect(node.lab.node.ipv4, VICTIM) == "timeout"

    eventually(is_closed, "the victim's port is closed", node.log, 5)
    assert "open" == node.lab.peer.connect(node.lab.node.ipv4, VICTIM)
    assert [] == node.logged(EventKey.PASS_FAILED)
    assert [] == node.logged(EventKey.EVENT_FAILED)


def test_a_mount_that_does_not_answer_stops_nobody(node: Guarded, folder: Path) -> None:
    """Neither the daemon that runs nor one that starts; the status names the file's process."""
    with hung_mount(folder / "mount") as file:
        process = liar(node, SLEEP, "vllm", "--config", str(file))
        name = f"process {process.pid} of user {USER}"
        eventually(lambda: name in problems(node), "it is named", node.log)
        is_closed_soon(node)
        node.stop()
        begun = time.monotonic()
        node.start()
        assert time.monotonic() - begun < 15
        assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, VICTIM)
        eventually(lambda: "did not answer" in problems(node), "it was given up", node.log)


def test_an_api_stays_closed_until_its_file_was_read(node: Guarded, folder: Path) -> None:
    """A port that only the file can name is public when the file says so, not before."""
    script = folder / "vllm"
    server = "import socket; s = socket.create_server(('0.0.0.0', 8011), backlog=2048)"
    script.write_text(f"#!{sys.executable}\n{server}\n{SLEEP}\n")
    script.chmod(0o755)
    with hung_mount(folder / "mount") as file:
        hung = node.lab.node.popen(as_user([str(script), "serve", "m", "--config", str(file)]))
        node.wait_for_rule(8011)
        assert "timeout" == node.lab.stranger.connect(node.lab.node.ipv4, 8011)
        os.killpg(hung.pid, 9)
        hung.wait()
    (folder / "f.yaml").write_text("port: 8011\n")
    (folder / "f.yaml").chmod(0o644)
    node.lab.node.popen(as_user([str(script), "serve", "m", "--config", str(folder / "f.yaml")]))

    def is_public() -> bool:
        return node.lab.stranger.connect(node.lab.node.ipv4, 8011) == "open"

    eventually(is_public, "the API is public", node.log)


@pytest.mark.parametrize("kind", ODD)
def test_an_odd_file_stops_nobody(node: Guarded, folder: Path, kind: str) -> None:
    """It is parsed elsewhere, within limits."""
    (folder / "c.yaml").write_text(ODD[kind])
    (folder / "c.yaml").chmod(0o644)
    liar(node, SLEEP, "vllm", "--config", str(folder / "c.yaml"))
    is_closed_soon(node)
    node.ask("reload")
    assert [] == node.logged(EventKey.PASS_FAILED)


@pytest.mark.parametrize("text", ["²", "9" * 5000, "\n" * 60_000, "-1", "٣"])
def test_an_odd_file_of_rays_stops_nobody(node: Guarded, folder: Path, text: str) -> None:
    """Its ports are numbers, or they are none."""
    session = folder / "session_1"
    session.mkdir()
    (session / "gcs_server_port_x").write_text(text)
    named = f"import ctypes; ctypes.CDLL(None).prctl(15, b'gcs_server', 0, 0, 0); {SLEEP}"
    liar(node, named, f"{session}/x")
    is_closed_soon(node)
    node.ask("reload")
    assert [] == node.logged(EventKey.PASS_FAILED)


HUB = """
import os, socket, sys, time
if os.fork() == 0:
    os.setgid(2000); os.setuid(2000)
    other = socket.create_server(("0.0.0.0", 8888)); time.sleep(600)
s = socket.create_server(("0.0.0.0", 8080))
if os.fork() == 0:
    os.setgid(1000); os.setuid(1000)
    words = ["python3", "-c", "from multiprocessing.spawn import spawn_main"]
    os.execve(sys.argv[1], words, {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"})
time.sleep(600)
"""
WAITS = """
#include <unistd.h>
int main(void) { pause(); return 0; }
"""


def test_a_setuid_program_pulls_nobody_into_a_workload(node: Guarded, folder: Path) -> None:
    """Its words are those of the user who started it, its ids those of root."""
    (folder / "waits.c").write_text(WAITS)
    subprocess.run(["cc", "-o", folder / "waits", folder / "waits.c"], check=True)
    (folder / "waits").chmod(0o4755)
    node.lab.node.popen([sys.executable, "-c", HUB, str(folder / "waits")])
    for port in (8080, 8888):
        eventually(lambda: _opens(node, port), "it listens", node.log)  # noqa: B023
    node.ask("reload")
    assert (True, True) == (_opens(node, 8080), _opens(node, 8888))


def _opens(node: Guarded, port: int) -> bool:
    return node.lab.stranger.connect(node.lab.node.ipv4, port) == "open"


def memory(node: Guarded) -> int:
    """Megabytes that the daemon holds."""
    assert node.process is not None
    return psutil.Process(node.process.pid).memory_info().rss >> 20


@pytest.mark.parametrize("code", [MANY, EXEC_MANY])
def test_long_command_lines_take_no_memory(node: Guarded, code: str) -> None:
    """A megabyte each: only what recognition needs is kept."""
    liar(node, code, *["ab"] * 100_000)
    is_closed_soon(node)
    node.ask("reload")
    assert memory(node) < 96


def test_very_many_mapped_files_take_no_memory(node: Guarded, folder: Path) -> None:
    """60,000, each with a path of 3,600 letters: more than 200 MB of text."""
    deep = folder / "deep"
    deep.mkdir()
    deep.chmod(0o777)
    process = liar(node, MAPS, str(deep), "vllm")
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    is_closed_soon(node)
    node.ask("reload")
    assert memory(node) < 96


# A thread waits for its mount while it holds the lock of its memory, and another one queues.
HOLDS = """
import mmap, os, sys, threading, time, ctypes
libc = ctypes.CDLL(None); libc.mmap.restype = ctypes.c_void_p
args = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
libc.mmap.argtypes = args; libc.munmap.argtypes = args[:2]
f = os.open(sys.argv[1], os.O_RDWR)
place = libc.mmap(None, 4096, 3, 1, f, 0)
ctypes.memset(place, 1, 4096)
print("ready", flush=True)
threading.Thread(target=libc.munmap, args=(place, 4096)).start()
time.sleep(0.5)
threading.Thread(target=libc.mmap, args=(None, 4096, 3, 0x22, -1, 0)).start()
time.sleep(600)
"""


def test_a_process_whose_memory_is_locked_stops_nobody(node: Guarded, folder: Path) -> None:
    """Its command line cannot be read: the kernel waits with the lock that it needs."""
    with hung_mount(folder / "mount", is_readable=True) as file:
        process = liar(node, HOLDS, str(file))
        assert process.stdout is not None
        assert "ready\n" == process.stdout.readline()
        time.sleep(1)
        node.stop()
        node.start()
        name = f"process {process.pid} of user {USER}"
        eventually(lambda: name in problems(node), "it is named", node.log)
        is_closed_soon(node)
    eventually(lambda: name not in problems(node), "it can be read again", node.log)
