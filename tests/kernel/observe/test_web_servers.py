"""Real web servers around an engine, in a namespace of their own, seen by a daemon that comes late.

Those that this Python does not have are skipped. The engine is a mapped file with vLLM's name.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.waiting import eventually
from vllmwall.observe import Observer
from vllmwall.recognize import recognize

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: builds network namespaces"),
]

APP = """
import mmap, pathlib
with (pathlib.Path(__file__).parent / "vllm" / "_C.abi3.so").open("rb") as file:
    engine = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)

async def app(scope, receive, send):
    while scope["type"] == "lifespan":
        await send({"type": (await receive())["type"] + ".complete"})
"""
UVICORN = "import app, sys, uvicorn\nuvicorn.run(app.app, host='0.0.0.0', port=int(sys.argv[2]))\n"
PLAIN = """
import app, asyncio, sys
async def main():
    server = await asyncio.start_server(lambda *_: None, "0.0.0.0", int(sys.argv[2]))
    await server.serve_forever()
asyncio.run(main())
"""
ON = ("--host", "0.0.0.0", "--port", "9000")
SERVERS = {
    "uvicorn": (["-m", "uvicorn", "app:app", *ON], "api"),
    "uvicorn, combined flags": (["-Bum", "uvicorn", "app:app", *ON], "api"),
    "uvicorn, two workers": (["-m", "uvicorn", "app:app", *ON, "--workers=2"], "api"),
    "uvicorn under cProfile": (
        ["-m", "cProfile", "-m", "uvicorn", "app:app", *ON],
        "api",
    ),
    "uvicorn in a script": (["serve.py", "--port", "9000"], "api"),
    "uvicorn in a script, unnamed": (["serve.py", "x", "9000"], "web"),
    "asyncio": (["plain.py", "--port", "9000"], "unknown"),
    "gunicorn": (["-m", "gunicorn", "app:app", "-b", "0.0.0.0:9000"], "api"),
    "hypercorn": (["-m", "hypercorn", "app:app", "-b", "0.0.0.0:9000"], "api"),
    "granian": (["-m", "granian", "--interface", "asgi", *ON, "app:app"], "api"),
}


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    (tmp_path / "vllm").mkdir()
    (tmp_path / "vllm" / "_C.abi3.so").write_bytes(bytes(4096))
    for name, text in (("app", APP), ("serve", UVICORN), ("plain", PLAIN)):
        (tmp_path / f"{name}.py").write_text(text)
    yield tmp_path


def roles(namespace: int) -> set[str]:
    """What a new daemon calls the listeners on port 9000."""
    node = Observer(frozenset({namespace})).observe()
    return {
        one.label.role.value
        for workload in recognize(node).workloads
        for one in workload.listeners
        if (one.listener.namespace, one.listener.port) == (namespace, 9000)
    }


@pytest.mark.parametrize("name", SERVERS)
def test_a_real_web_server(name: str, folder: Path) -> None:
    """The API that its operator asked for, and nothing that only has a port."""
    words, role = SERVERS[name]
    server = subprocess.Popen(
        ["unshare", "-n", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        eventually(
            lambda: {role} == roles(Path(f"/proc/{server.pid}/ns/net").stat().st_ino), "its role"
        )
    finally:
        os.killpg(server.pid, 9)
        server.wait()
