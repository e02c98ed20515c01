"""A job in a namespace of its own, to which pasta hands on a port of the node, as Podman 5 does."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.support.guarded import Guarded, guarded
from tests.support.lab import Host, Lab
from tests.support.mesh import talks
from tests.support.waiting import eventually

_ROUTES = """
ip address replace 192.0.2.1/24 dev eth0
ip route replace default via 192.0.2.254 dev eth0 onlink
ip route replace 203.0.113.0/24 dev eth0 scope link
"""
_PASTA = ["pasta", "--config-net", "--runas", "0:0", "-f", "-q", "-t", "29500"]
_PASTA += ["-u", "none", "-T", "none", "-U", "none", "--netns"]
_JOB = """
import mmap, os, socket
mapped = mmap.mmap(os.open(os.environ["LIBTORCH"], os.O_RDONLY), 0, prot=mmap.PROT_READ)
server = socket.create_server(("0.0.0.0", 29500))
print("ready", flush=True)
while True:
    client = server.accept()[0]
    client.settimeout(5)
    try:
        client.sendall(client.recv(64))
    except OSError:
        pass
"""


def test_the_wall_of_the_namespace_stops_strangers(lab: Lab, tmp_path: Path) -> None:
    """pasta accepts everybody on the node. Behind it the wall sees the address of who asks."""
    lab.node.run(["sh", "-ec", _ROUTES])
    box = Host("box", lab._namespace("box"), lab._hosts_file, lab._stack)
    job = box.popen([sys.executable, "-c", _JOB], env=Guarded(lab, tmp_path).rank_environment())
    assert job.stdout is not None
    assert "ready\n" == job.stdout.readline()
    lab.node.popen([*_PASTA, box.path])
    eventually(lambda: talks(lab.stranger, "192.0.2.1", 29500) == "answer", "pasta hands it on")
    with guarded(lab, tmp_path / "node", arguments=("--only-namespace", box.path)) as found:
        found.wait_for_rule(29500)
        assert "answer" != talks(lab.stranger, "192.0.2.1", 29500)
        assert "answer" == talks(lab.peer, "192.0.2.1", 29500)
        assert [True, []] == [found.ask("status")[one] for one in ("safe", "reservations")]
