"""A DNS name whose answers shrink: running connections of peers go on, and strangers stay out."""

from __future__ import annotations

import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

import pytest

from tests.support.guarded import Guarded, eventually
from tests.support.lab import Lab
from tests.support.severing import dialled, ending, lives

NAME = "gpu-nodes.example"
PORT = 29500
ECHO = """
import mmap, os, socket, sys, threading
library = mmap.mmap(os.open(os.environ["LIBTORCH"], os.O_RDONLY), 0, prot=mmap.PROT_READ)
def echo(client):
    while data := client.recv(64):
        client.sendall(data)
listening = socket.create_server(("0.0.0.0", int(sys.argv[1])), backlog=128)
while True:
    threading.Thread(target=echo, args=(listening.accept()[0],), daemon=True).start()
"""
OTHERS = tuple(str(ip_address("192.0.2.100") + number) for number in range(49))


@dataclass
class Dns:
    """A dnsmasq on the node, and the file that it answers from."""

    hosts: Path
    process: subprocess.Popen[str]
    node: Guarded

    def answer(self, *addresses: str) -> None:
        """Answer so from now on, and let the daemon ask."""
        self.hosts.write_text("".join(f"{one} {NAME}\n" for one in addresses))
        self.process.send_signal(signal.SIGHUP)
        eventually(lambda: self._resolved() == set(addresses), "dnsmasq answers so")
        assert self.node.command("reload").returncode == 0

    def _resolved(self) -> set[str]:
        script = f"""if True:
            import json, socket
            print(json.dumps(sorted({{a[4][0] for a in socket.getaddrinfo({NAME!r}, None)}})))"""
        command = ["unshare", "-m", "sh", "-c", f'{self.node.before}; exec "$@"', "sh"]
        done = self.node.lab.node.run([*command, "/usr/bin/python3", "-c", script])
        return set(json.loads(done.stdout))


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Iterator[Guarded]:
    """A daemon whose peers are fifty hosts of a DNS name, the lab's peer among them."""
    resolver = tmp_path / "resolv.conf"
    resolver.write_text("nameserver 127.0.0.1\noptions timeout:2\n")
    before = f'mount --bind "{resolver}" /etc/resolv.conf'
    # A full pass is what sees that a time is over.
    found = Guarded(lab, tmp_path / "node", before=before, full_pass_seconds=2)
    yield found
    if found.process is not None and found.process.poll() is None:
        found.stop()


def started(node: Guarded, hold_seconds: float) -> Dns:
    """DNS that answers with fifty addresses, a daemon, and a rank with a port."""
    folder = node.folder
    hosts = folder / "dns-hosts"
    everybody = (node.lab.peer.ipv4, *OTHERS)
    hosts.write_text("".join(f"{one} {NAME}\n" for one in everybody))
    command = ["dnsmasq", "--keep-in-foreground", "--no-resolv", "--no-hosts", "--user=root"]
    command += ["--conf-file=/dev/null", "--pid-file=", "--listen-address=127.0.0.1"]
    command += ["--bind-interfaces", f"--addn-hosts={hosts}"]
    process = node.lab.node.popen(command, output=folder / "dnsmasq.log")
    dns = Dns(hosts, process, node)
    eventually(lambda: dns._resolved() == set(everybody), "dnsmasq answers", folder / "dnsmasq.log")
    node.configure(f"[peers]\ndns = ['{NAME}']\nhold_seconds = {hold_seconds}\n")
    node.start()
    return dns


def job(node: Guarded) -> None:
    """A rank that echoes at its port, and its rule."""
    argv = [sys.executable, "-c", ECHO, str(PORT)]
    process = node.lab.node.popen(argv, env=node.rank_environment(), output=node.folder / "job.log")
    eventually(lambda: process.poll() is None and node.listeners(), "the job listens", node.log)
    node.wait_for_rule(PORT)


def said(node: Guarded) -> str:
    """The lines of `status` about peers that are gone."""
    problems = node.ask("status")["problems"]
    assert isinstance(problems, list)
    return "\n".join(line for line in problems if "disappeared" in line)


def test_one_address_instead_of_fifty_cuts_no_job(lab: Lab, node: Guarded) -> None:
    """Not after the hold time either. A person who accepts the loss cuts it."""
    dns = started(node, 1)
    job(node)
    with ExitStack() as held:
        running = dialled(held, lab.peer, lab.node.ipv4, PORT)
        dns.answer(OTHERS[0])
        assert "49 networks" in said(node)
        assert f"vllmwall peers accept-loss {NAME}" in said(node)
        time.sleep(1.5)  # longer than the hold time
        assert node.command("reload").returncode == 0
        assert lives(running)
        assert "open" == lab.peer.connect(lab.node.ipv4, PORT)
        assert "timeout" == lab.stranger.connect(lab.node.ipv4, PORT)
        node.stop(signal.SIGKILL)
        node.start()
        assert lives(running)
        assert "open" == lab.peer.connect(lab.node.ipv4, PORT)
        done = node.command("peers", "accept-loss", NAME)
        assert (0, "") == (done.returncode, done.stderr)
        assert ending(running) == errno.ECONNRESET
        assert "timeout" == lab.peer.connect(lab.node.ipv4, PORT)
        assert "" == said(node)


def test_a_host_that_leaves_is_cut_after_the_hold_time(lab: Lab, node: Guarded) -> None:
    """One of fifty is no trouble with DNS: nobody has to do anything. A new one joins at once."""
    dns = started(node, 4)
    job(node)
    with ExitStack() as held:
        running = dialled(held, lab.peer, lab.node.ipv4, PORT)
        dns.answer(*OTHERS, lab.stranger.ipv4)
        assert "open" == lab.stranger.connect(lab.node.ipv4, PORT)
        assert "1 network (192.0.2.2/32) disappeared" in said(node)
        assert lives(running)
        eventually(lambda: lab.peer.connect(lab.node.ipv4, PORT) == "timeout", "it is cut")
        assert ending(running) == errno.ECONNRESET


def test_a_name_that_comes_back_leaves_no_trace(lab: Lab, node: Guarded) -> None:
    """DNS that was wrong for a moment."""
    dns = started(node, 600)
    job(node)
    with ExitStack() as held:
        running = dialled(held, lab.peer, lab.node.ipv4, PORT)
        dns.answer(OTHERS[0])
        dns.answer(lab.peer.ipv4, *OTHERS)
        assert "" == said(node)
        assert lives(running)
