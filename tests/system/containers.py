"""A node with a container engine and our package on it, and hosts that connect from outside."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

from pyroute2 import IPRoute

from tests.support.hammer import hammer
from tests.support.lab import Lab
from tests.system import debian
from tests.system.box import ADDRESS, REPOSITORY, Box, box
from tests.system.installed import Node
from tests.system.units import NETWORK, UNITS

API, INTERNAL = 8000, 29500
ADDRESS6 = "2001:db8:b0::1"
STRANGER, PEER = "203.0.113.9", "203.0.113.20"
STRANGER6, PEER6 = "2001:db8:c0::9", "2001:db8:c0::2"
PUBLISHED = ("-p", f"{API}:{API}", "-p", f"{INTERNAL}:{INTERNAL}")
GUARDED = ("open", "timeout")
"""What a stranger finds at the API and at what is internal."""
IMAGE = "vllm/vllm-openai:test"
VLLM = "/srv/bin/vllm"

_PEERS = f'[peers]\ncidrs = ["{PEER}/32", "{PEER6}/128"]\n'
_NETWORK6 = NETWORK.replace(
    "[Install]",
    f"ExecStart=ip address add {ADDRESS6}/128 dev host0 nodad\n"
    "ExecStart=ip route add 2001:db8:c0::/64 dev host0\n[Install]",
)
# Their images' layers cannot lie on the box's own overlay.
_STORES = "tmpfs /var/lib/{} tmpfs mode=0700 0 0\n"
# What an image need not have: documents, and what the engines themselves are made of.
_LEFT_OUT = ("usr/share", "var", "usr/libexec", "usr/lib/systemd", "usr/lib/apt", "usr/sbin")
_PROGRAMS = ("docker*", "podman*", "container*", "runc", "crun", "ctr")
_TALK = f"{REPOSITORY}/tests/system/talk.py"
_COUNTERS = re.compile(r"\[\d+:\d+\]|^#.*$", re.MULTILINE)


class ContainerNode(Node):
    """Such a node. ``engine`` is the command: docker or podman."""

    def __init__(self, lab: Lab, host: Box, engine: str) -> None:
        super().__init__(lab, host)
        self.engine = engine

    def prepare(self) -> None:
        """Network, stores and the stand-in for vLLM; before the first boot."""
        self.box.write(f"{UNITS}/network.service", _NETWORK6)
        subprocess.run(self._systemctl("enable", "network.service"), check=True)
        stores = ("docker", "containers")
        self.box.write("/etc/fstab", "".join(_STORES.format(one) for one in stores))
        self.box.write("/etc/hosts", "127.0.0.1 localhost node\n")
        self.box.write("/etc/hostname", "node\n")
        self.box.write("/etc/vllmwall/conf.d/peers.toml", _PEERS)
        source = (REPOSITORY / "tests/system/serving.py").read_text()
        self.box.write(VLLM, f"#!/usr/bin/python3\n{source}")
        (self.box.root / VLLM.lstrip("/")).chmod(0o755)

    def mask(self, *units: str) -> None:
        """Keep these from starting; before the first boot."""
        subprocess.run(self._systemctl("mask", *units), check=True)

    def _systemctl(self, verb: str, *units: str) -> list[str]:
        return ["systemctl", "--quiet", f"--root={self.box.root}", verb, *units]

    def admit_visitors(self) -> None:
        """Give the host outside the addresses of a stranger and of a peer."""
        self.lab.stranger.add_address(PEER)
        self.lab.stranger.call(_give_cable_addresses)

    def import_image(self, root: Path) -> None:
        """An image that has a Python, from the root of the box."""
        left_out = [f"--exclude=./{one}" for one in _LEFT_OUT]
        left_out += [f"--exclude=./usr/bin/{one}" for one in _PROGRAMS]
        tar = subprocess.Popen(["tar", "-C", root, "-c", *left_out, "."], stdout=subprocess.PIPE)
        taken = self.box.inside(self.engine, "import", "-", IMAGE)
        subprocess.run(taken, stdin=tar.stdout, check=True, capture_output=True, timeout=120)
        assert 0 == tar.wait()

    def start(self, name: str, *options: str, command: tuple[str, ...] = ("sleep", "9999")) -> str:
        """Start a container; its id."""
        run = [
            self.engine,
            "run",
            "--detach",
            "--name",
            name,
            "-v",
            f"{REPOSITORY}:{REPOSITORY}:ro",
        ]
        run += ["-v", f"{VLLM}:/usr/local/bin/vllm:ro", *options, IMAGE, *command]
        done = self.box.run(*run, check=False)
        assert 0 == done.returncode, done.stderr
        return done.stdout.strip()

    def serve(self, name: str, *options: str, host: str = "0.0.0.0") -> str:
        """Start a container that serves a model, and wait until it does; its id."""
        made = self.start(name, *options, command=("vllm", "serve", "tiny", "--host", host))
        self.eventually(lambda: self.talk_from_outside(API) == "open", f"{name} serves")
        return made

    def restarts_of_a_quick_job(self, times: int) -> int:
        """Restart a job that listens as soon as its Python runs; how often a stranger got in.

        First by command, then by the engine itself, as often as it does within some seconds.
        """
        quick = ("vllm", "serve", "tiny", "--delay", "0")
        self.start("quick", "--network=host", command=quick)
        self.eventually(lambda: self.talk_from_outside(INTERNAL) == "timeout", "it is guarded")
        again = [lambda: self.box.run(self.engine, "restart", "-t", "0", "quick")] * times
        opened = self.hammered(*again, seconds=2.0 * times)
        self.remove_all()
        options = ("--network=host", "--restart=always")
        self.start("always", *options, command=("timeout", "0.5", *quick))
        self.eventually(lambda: self.talk_from_outside(INTERNAL) == "timeout", "it is guarded")
        return opened + self.hammered(seconds=15)

    def remove_all(self) -> None:
        """Every container, and what it has open."""
        if names := self.box.run(self.engine, "ps", "--all", "--quiet").stdout.split():
            self.box.run(self.engine, "kill", *names, check=False)  # podman would ask, and wait
            self.box.run(self.engine, "rm", "--force", *names)

    def ip(self, name: str) -> str:
        """A container's own address."""
        shown = self.box.run(self.engine, "inspect", name).stdout
        return str(json.loads(shown)[0]["NetworkSettings"]["IPAddress"])

    def talk_from_outside(self, port: int, source: str = STRANGER) -> str:
        """From outside: ``open``, ``silent`` (taken, and no answer), ``refused``, ``timeout``."""
        address = ADDRESS6 if ":" in source else ADDRESS
        try:
            with self.lab.stranger.dial(address, port, source=source) as connection:
                try:
                    connection.sendall(b"hello")
                    return "open" if connection.recv(64) == b"hello" else "silent"
                except OSError:
                    return "silent"
        except ConnectionRefusedError:
            return "refused"
        except TimeoutError:
            return "timeout"

    def outside(self, *sources: str) -> list[tuple[str, str]]:
        """What each finds at the API's port and at the internal one."""
        return [
            (self.talk_from_outside(API, one), self.talk_from_outside(INTERNAL, one))
            for one in sources
        ]

    def talk_from(self, name: str, address: str, port: int) -> str:
        """The same from a container, or from the host with no name."""
        within = [self.engine, "exec", name] if name else []
        return self.box.run(*within, "python3", _TALK, address, str(port)).stdout.strip()

    def hammered(self, *steps: Callable[[], object], seconds: float = 4.0) -> int:
        """Take steps while a stranger hammers the internal port: how often it got in."""
        todo = list(steps)
        door = (ADDRESS, INTERNAL)
        tried, opened = hammer(
            self.lab.stranger, "tcp", door, seconds, lambda: todo.pop(0)() if todo else None
        )
        assert tried > 500
        assert not todo, "the machine was too slow for the steps"
        return opened

    def others_rules(self) -> str:
        """The rules of all other programs, without what counts."""
        saves = "; ".join(f"{one}-save" for one in ("iptables", "ip6tables"))
        others = "for t in $(nft list tables | grep -v vllmwall | cut -d' ' -f2- | tr ' ' ,); do "
        others += "nft -s list table $(echo $t | tr , ' '); done"
        return _COUNTERS.sub("", self.box.run("sh", "-c", f"{saves}; {others}").stdout)

    def ask(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Our command line, run as a unit: in a cgroup that the box can see."""
        run = ("systemd-run", "--quiet", "--wait", "--pipe", "--collect")
        return self.box.run(*run, "vllmwall", *words, check=False)

    def guard(self, container: str) -> str:
        """The state of the guard of the container with this id."""
        workloads = self.status()["workloads"]
        assert isinstance(workloads, list)
        (state,) = [one["guard"]["state"] for one in workloads if container in one["cgroup"]]
        return str(state)


def _give_cable_addresses() -> None:
    with IPRoute() as routes:
        (cable,) = (
            link["index"]
            for link in routes.get_links()
            if link.get("ifname", "").startswith("vwbox")
        )
        for address in (STRANGER6, PEER6):
            routes.addr("add", index=cable, address=address, prefixlen=128, flags=0x02)
        routes.route("replace", dst=f"{ADDRESS6}/128", oif=cable)


@contextlib.contextmanager
def container_node(folder: Path, engine: str) -> Iterator[ContainerNode]:
    """A booted node without our package. Skips where its root cannot be had."""
    root = debian.root("bookworm", *debian.CONTAINERS)
    with Lab() as lab, box(folder, lab.stranger, root) as host:
        made = ContainerNode(lab, host, engine)
        made.prepare()
        yield made
