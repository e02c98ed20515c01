"""libnftables inside a long-lived process: descriptors, namespaces that go, errors."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pytest

from tests.kernel.walls import everywhere, wall
from tests.lab import Lab
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.libnftables import Libnftables
from vllmwall.enforce.nftables import Nftables

_BUSY = """
import os, resource, sys
from vllmwall.enforce.nftables import Nftables
from vllmwall.model import Wall
from vllmwall.netns import OWN
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
backend = Nftables()
{fill}
for path in (OWN, sys.argv[1], OWN, sys.argv[1]):
    wanted = Wall(os.stat(path).st_ino, frozenset(), {{"peers": ()}})
    backend.apply(path, wanted, None)
    assert backend.read_back(path) == wanted
    {refill}
print("done")
"""
_OPEN = "[os.open('/dev/null', os.O_RDONLY) for _ in range(1200)]"
_OPEN_ALL = """
try:
    while True:
        os.open('/dev/null', os.O_RDONLY)
except OSError:
    pass
"""


def test_more_than_a_thousand_descriptors_do_no_harm(lab: Lab) -> None:
    """libnftables aborts on a descriptor of 1024 or more; it never gets one."""
    script = _BUSY.format(fill=_OPEN, refill="")
    done = lab.node.run([sys.executable, "-c", script, lab.peer.path])
    assert done.stdout == "done\n"


def test_no_free_descriptor_low_is_an_error_and_no_abort(lab: Lab) -> None:
    """When the reserve is lost too, the daemon hears of it and lives on."""
    script = """
import os, resource
from vllmwall.enforce.libnftables import Libnftables
from vllmwall.netns import OWN
resource.setrlimit(resource.RLIMIT_NOFILE, (2048, 2048))
library = Libnftables()
for fd in library._reserved: os.close(fd)
while os.open('/dev/null', os.O_RDONLY) < 1100: pass
library._reserved = [os.open('/dev/null', os.O_RDONLY) for _ in range(2)]
try:
    library.run(OWN, "list table inet vllmwall")
except OSError as error:
    print(error)
"""
    done = lab.node.run([sys.executable, "-c", script])
    assert "no descriptor below 1024 is left" in done.stdout


def test_a_handle_does_not_keep_a_namespace_alive(lab: Lab, backend: Nftables) -> None:
    """A container's namespace goes when the container goes, though we wrote a wall into it."""
    brief = lab.host("brief", "192.0.2.50")
    wire = Path(lab.node.path).with_name(Path(lab.node.path).name.replace("-node", "-wire"))
    ports = ["ip", "-n", wire.name, "-o", "link"]
    before = lab.node.run(ports).stdout.count("port")
    backend.apply(brief.path, wall(brief, everywhere(29500, "peers")), None)
    with pytest.raises(EnforceError):
        Libnftables().run(brief.path, "no such command")
    backend.read_back(brief.path)
    lab.node.run(["ip", "netns", "del", Path(brief.path).name])
    deadline = time.monotonic() + 5
    while lab.node.run(ports).stdout.count("port") == before and time.monotonic() < deadline:
        pass
    assert lab.node.run(ports).stdout.count("port") < before


def test_a_namespace_that_is_gone_is_an_os_error(backend: Nftables) -> None:
    """There is nothing to read and nothing to refuse."""
    with pytest.raises(FileNotFoundError):
        backend.read_back("/run/netns/vwlab-never-there")


def test_an_error_shows_the_script_around_the_line(lab: Lab) -> None:
    """What nft refuses is reported with its words and the numbered lines it means."""
    script = "\n".join([f"add table inet vllmwall{n}" for n in range(5)] + ["add bogus", "x", "y"])
    with pytest.raises(EnforceError) as caught:
        Libnftables().run(lab.node.path, script)
    assert "syntax error" in str(caught.value)
    assert "    6  add bogus" in str(caught.value)
    assert "    1  add table" not in str(caught.value)
    assert caught.value.script.startswith("    1  add table inet vllmwall0\n")
    assert lab.node.run(["nft", "list", "ruleset"]).stdout == ""  # one transaction: nothing came
