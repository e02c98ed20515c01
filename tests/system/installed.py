"""A node with our package on it, and a job whose ports tell whether it guards."""

from __future__ import annotations

import contextlib
import json
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import cast

from tests.support.building import OLD, built_package
from tests.support.hammer import hammering
from tests.support.lab import Lab
from tests.support.waiting import eventually
from tests.system import debian
from tests.system.box import ADDRESS, REPOSITORY, Box, box
from tests.system.units import NETWORK, UNITS

API, INTERNAL = 8000, 29600
JOB = "/srv/job.py"  # not of the checkout, which another user may not be able to read
JOB_COMMAND = f"/usr/bin/python3 {JOB} serve nothing --master-port={INTERNAL} --delay=0"
# Another user's, in a mount namespace of its own: what the daemon may see of it, it sees by
# its capabilities.
_JOB = f"""[Service]
DynamicUser=yes
ExecStart={JOB_COMMAND}
Restart=always
[Install]
WantedBy=multi-user.target
"""
_TAUGHT = """[[workload]]
name = "job"
match = { unit = "job.service" }
api_ports = [8000]
"""
_PATIENCE = 120.0  # seconds; torch alone takes some to load on a small machine
_HAMMERED_AT_LEAST = 3.0  # seconds

NOT_LOOKED_AT = ("/proc", "/sys", "/srv", "/tmp", "/var/log", "/run/log", str(REPOSITORY))
NOT_OURS = ("/var/lib/apt/", "/var/cache/")


class Node:
    """A box on which the package is installed by its own tools."""

    def __init__(self, lab: Lab, host: Box) -> None:
        self.lab = lab
        self.box = host
        self.said = ""

    def prepare(self) -> None:
        """A network, a job and what we are taught about it; before the first boot."""
        self.box.write(f"{UNITS}/network.service", NETWORK)
        self.box.write(f"{UNITS}/job.service", _JOB)
        self.box.write(JOB, (REPOSITORY / "tests/system/serving.py").read_text())
        self.box.write("/etc/hosts", "127.0.0.1 localhost node\n")
        self.box.write("/etc/hostname", "node\n")
        units = ["network.service", "job.service"]
        enable = ["systemctl", "--quiet", f"--root={self.box.root}", "enable", *units]
        subprocess.run(enable, check=True)
        self.configure("")

    def configure(self, more: str) -> None:
        """Beside what it is taught; nobody reads it until the next reload."""
        self.box.write("/etc/vllmwall/conf.d/job.toml", _TAUGHT + more)

    def reload(self) -> None:
        """Have the daemon read it; fails with the journal when it does not like it."""
        done = self.box.run("systemctl", "reload", "vllmwall", check=False)
        assert 0 == done.returncode, done.stderr + self.box.journal()[-4000:]

    def put(self, package: Path) -> str:
        """A package file, where the node can see it."""
        inside = f"/srv/{package.name}"
        self.box.write(inside, "")
        (self.box.root / inside.lstrip("/")).write_bytes(package.read_bytes())
        return inside

    def install(self, package: Path) -> str:
        """Install, upgrade or go back; what the tool said. There is nothing to download from."""
        command = ["apt-get", "install", "-y", "--no-install-recommends", "--allow-downgrades"]
        done = self.box.run(*command, self.put(package), check=False)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout

    def rpm(self, verb: str, package: Path) -> str:
        """As `install`, by rpm: the names of what we depend on are another distribution's."""
        done = self.box.run("rpm", verb, "--nodeps", self.put(package), check=False)
        assert 0 == done.returncode, done.stdout + done.stderr
        return done.stdout + done.stderr

    def status(self) -> dict[str, object]:
        """The daemon's answer, as root. Raises ValueError where it gives none."""
        said = self.box.run("vllmwall", "status", "--json", check=False).stdout
        answer = cast("dict[str, object]", json.loads(said))
        if "error" in answer:
            raise ValueError(said)
        return answer

    def daemon_pid(self) -> int:
        """Systemd's word; 0: none runs."""
        return int(self.box.run("systemctl", "show", "-P", "MainPID", "vllmwall").stdout)

    def left(self) -> list[str]:
        """What is on the node that has our name: files, units, rules, groups."""
        elsewhere = " -o ".join(f"-path {one}" for one in NOT_LOOKED_AT)
        look = rf"find / -xdev \( {elsewhere} \) -prune -o -iname '*vllmwall*' -print"
        files = self.box.run("sh", "-c", look).stdout.splitlines()
        others = "nft list ruleset; systemctl list-units --all --plain; getent group; ls /run"
        lines = self.box.run("sh", "-c", others, check=False).stdout.splitlines()
        return [one for one in files if not one.startswith(NOT_OURS)] + [
            one for one in lines if "vllmwall" in one
        ]

    def reached(self, port: int) -> str:
        """From outside, by a stranger: ``open``, ``refused`` or ``timeout``."""
        return self.lab.stranger.connect(ADDRESS, port)

    def guards(self) -> bool:
        """By packets: the API is open, what is internal is not."""
        return (self.reached(API), self.reached(INTERNAL)) == ("open", "timeout")

    def is_open(self) -> bool:
        """By packets: both can be reached."""
        return (self.reached(API), self.reached(INTERNAL)) == ("open", "open")

    def talk(self) -> socket.socket:
        """A connection through the API's port."""
        return self.lab.stranger.dial(ADDRESS, API)

    def eventually(self, condition: Callable[[], object], what: str) -> None:
        """Wait for it; fail with the journal."""

        def holds() -> object:
            with suppress(ValueError, subprocess.CalledProcessError):
                return condition()
            return False

        eventually(holds, what, lambda: self.box.journal()[-4000:], _PATIENCE)


@contextlib.contextmanager
def installed(suite: str, folder: Path) -> Iterator[Node]:
    """A booted Debian on which the package was installed a moment ago."""
    root = debian.root(suite)
    with Lab() as lab, box(folder, lab.stranger, root) as host:
        made = Node(lab, host)
        made.prepare()
        host.boot()
        made.eventually(made.is_open, "the job listens, and nobody guards it yet")
        made.said = made.install(built_package("deb", OLD))
        yield made


def while_hammered(node: Node, *steps: Callable[[], object]) -> tuple[int, int]:
    """Take steps while a stranger hammers what is internal: how often it tried and got in."""
    at_least = time.monotonic() + _HAMMERED_AT_LEAST
    with hammering(node.lab.stranger, "tcp", (ADDRESS, INTERNAL)) as attempts:
        for step in steps:
            step()
        time.sleep(max(0.0, at_least - time.monotonic()))
    return attempts.tried, attempts.opened


def answers(connection: socket.socket) -> bool:
    """Whether a connection still carries words both ways."""
    connection.settimeout(3)
    connection.sendall(b"still there?")
    return connection.recv(64) == b"still there?"
