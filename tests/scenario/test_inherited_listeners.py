"""Listeners that somebody above a job made and passed to it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.support.guarded import Guarded, eventually, guarded
from tests.support.lab import Lab

_LAUNCHER = r"""
import os, socket, subprocess, sys
server = socket.create_server(("0.0.0.0", 29500))
argv = [sys.executable, "-c", sys.argv[1], str(server.fileno())]
subprocess.run(argv, pass_fds=[server.fileno()], env={**os.environ, "RANK": "0", "WORLD_SIZE": "2"})
"""
_RANK = r"""
import mmap, os, socket, sys, time
library = open(os.environ["LIBTORCH"], "rb")
mapped = mmap.mmap(library.fileno(), 0, prot=mmap.PROT_READ)
server = socket.socket(fileno=int(sys.argv[1]))
os.setuid(1234)
print("ready", flush=True)
time.sleep(600)
"""


def launched(node: Guarded) -> None:
    """A plain program that listens, and starts a rank of another user with its listener."""
    library = node.folder / "libtorch_cpu.so"
    library.write_bytes(b"not really")
    more = {"LIBTORCH": str(library), "LOCAL_RANK": "0", "MASTER_ADDR": "192.0.2.1"}
    process = node.lab.node.popen(
        [sys.executable, "-c", _LAUNCHER, _RANK], env={**os.environ, **more, "MASTER_PORT": "29500"}
    )
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()


def test_a_launcher_s_listener_is_shown_as_open(lab: Lab, tmp_path: Path) -> None:
    """It may be any program's, so no rule closes it; but the node is not called safe."""
    with guarded(lab, tmp_path) as node:
        launched(node)
        eventually(lambda: len(node.listeners()) == 1, "the listener is shown", node.log)
        node.ask("reload")
        (one,) = node.listeners()
        assert (29500, "none", ["public"]) == (one["port"], one["rule"], one["audience"])
        assert "held by python" in str(one["reason"])
        assert "open" == lab.stranger.connect(lab.node.ipv4, 29500)
        status = node.ask("status")
        assert status["safe"] is not True
        assert ["held-outside"] == [each["kind"] for each in status["reservations"]]  # type: ignore[attr-defined]
        shown = node.command("status").stdout
        assert "no listener yet" not in shown
        assert "held by python" in shown
