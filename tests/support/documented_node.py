"""A node of the lab on which the documentation's commands run exactly as they are written.

It has folders of its own under the real names (/etc, /run, /var/lib), a daemon with the default
paths, a workload with an API and internal ports, and the programs of this checkout on its PATH.
Nothing that a command writes reaches the machine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from tests.support.documents import ROOT
from tests.support.guarded import Guarded, Program, eventually
from tests.support.lab import Host, Lab

STORE = 29500
SOCKET = Path("/run/vllmwall/control.sock")
CONFIG = """
[peers]
cidrs = ["192.0.2.2/32", "2001:db8::2/128", "10.0.0.0/24"]
"""
PATIENCE = 60.0  # seconds for one command
_FOLLOWS = 3.0  # seconds after which a reader would press Ctrl-C
# $1 is an empty folder, $2 the host's network namespace, $3 its /etc/hosts; then the command.
_PRIVATE = """
set -e
mount -t tmpfs none "$1"
mkdir "$1/hosts" "$1/netns"
for folder in etc var/lib; do
    mkdir -p "$1/$folder/upper" "$1/$folder/work"
    layers="lowerdir=/$folder,upperdir=$1/$folder/upper,workdir=$1/$folder/work"
    mount -t overlay overlay -o "$layers" "/$folder"
done
mount --bind "$3" /etc/hosts
touch "$1/node" && mount --bind "$2" "$1/node"
mount -t tmpfs none /run
mkdir -p /run/netns /run/vllmwall /etc/vllmwall /var/lib/vllmwall
touch "$2" && mount --bind "$1/node" "$2"
printf %s "$4" >/etc/vllmwall/vllmwall.toml
shift 4
exec "$@"
"""


class DocumentedNode:
    """The node, with its daemon running. Made by `documented_node`."""

    def __init__(self, lab: Lab, folder: Path) -> None:
        self.folder = folder
        self._guarded = Guarded(lab, folder / "workload")
        self._lab = lab
        private = folder / "private"
        private.mkdir()
        (folder / ".venv").symlink_to(ROOT / ".venv")
        for name in ("packaging", "systemd"):
            shutil.copytree(ROOT / name, folder / name)
        arguments = [str(private), lab.node.path, str(lab.node.hosts_file), CONFIG]
        daemon = [sys.executable, "-m", "vllmwall", "daemon", "--log", "json"]
        daemon += ["--only-namespace", lab.node.path]
        self.log = folder / "log"
        self.process = lab.node.popen(
            ["sh", "-c", _PRIVATE, "sh", *arguments, *daemon], output=self.log
        )

    def run(self, shell: str) -> subprocess.CompletedProcess[str]:
        """Run shell as a reader would on this node. What follows is ended by Ctrl-C."""
        entry = ["nsenter", f"--target={self.process.pid}", "--mount", "--net", "--uts"]
        environment = {**os.environ, "PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}"}
        environment.pop("VLLMWALL_SOCKET", None)
        running = subprocess.Popen(
            [*entry, f"--wd={self.folder}", "sh", "-c", shell],
            env={**environment, "COLUMNS": "80"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        with contextlib.suppress(ProcessLookupError):
            try:
                patience = _FOLLOWS if "--follow" in shell else PATIENCE
                output, errors = running.communicate(timeout=patience)
            except subprocess.TimeoutExpired:
                os.killpg(running.pid, signal.SIGINT)
                output, errors = running.communicate(timeout=PATIENCE)
                assert "--follow" in shell, f"{shell} does not end\n{output}{errors}"
        return subprocess.CompletedProcess(shell, running.returncode, output, errors)

    def workloads(self) -> Iterator[Program]:
        """An API and a store of torch.distributed."""
        server = self._guarded.server(8000)
        server.open("tcp", "0.0.0.0", 8000)
        rank = self._guarded.rank()
        rank.open("tcp", "0.0.0.0", STORE)
        yield from (server, rank)

    def is_safe(self) -> bool:
        """Whether `vllmwall status` calls the node safe with both listeners known."""
        assert self.process.poll() is None, "the daemon ended:\n" + self.log.read_text()
        done = self.run("vllmwall status")
        return done.returncode == 0 and str(STORE) in done.stdout and "8000" in done.stdout


class Visitor:
    """An untrusted host that tries the store again and again, and stays where it gets in.

    A context manager.
    """

    def __init__(self, host: Host, address: str) -> None:
        self._host, self._address = host, address
        self._leave = threading.Event()
        self._thread = threading.Thread(target=self._visit)

    def __enter__(self) -> Visitor:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._leave.set()
        self._thread.join()

    def _visit(self) -> None:
        while not self._leave.is_set():
            with (
                contextlib.suppress(OSError),
                self._host.dial(self._address, STORE, timeout=0.3),
            ):
                self._leave.wait(2)
            self._leave.wait(0.3)


@contextlib.contextmanager
def documented_node(lab: Lab, folder: Path) -> Iterator[DocumentedNode]:
    """A node that is safe, and gone afterwards with all that its commands left."""
    made = DocumentedNode(lab, folder)
    programs: list[Program] = []
    try:
        eventually(lambda: made.run(f"test -S {SOCKET}").returncode == 0, "a daemon", made.log)
        programs += made.workloads()
        eventually(made.is_safe, "a safe node", made.log)
        with lab.peer.dial(lab.node.ipv4, STORE), Visitor(lab.stranger, lab.node.ipv4):
            yield made
    finally:
        for program in programs:
            program.kill()
        if made.process.poll() is None:
            made.process.terminate()
            made.process.wait(timeout=PATIENCE)
        delete = ["nft", "delete", "table", "inet", "vllmwall"]
        subprocess.run(lab.node.command(delete), check=False, capture_output=True)
