"""libnftables inside a long-lived process: descriptors, namespaces that go, errors."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.lab import Lab
from tests.support.walls import everywhere, wall
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.enforce.nftables.libnftables import Libnftables
from vllmwall.linux.netns import inode_of

_BUSY = """
import os, resource, sys
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.linux.netns import inode_of
from vllmwall.model import Wall
from vllmwall.linux.netns import OWN
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
from vllmwall.enforce.nftables.libnftables import Libnftables
from vllmwall.linux.netns import OWN
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


def _ends_with(lab: Lab, name: str, act: Callable[[], None]) -> bool:
    """Whether the namespace of a host ends with its name, having done something."""
    wire = Path(lab.node.path).with_name(Path(lab.node.path).name.replace("-node", "-wire"))
    ports = ["ip", "-n", wire.name, "-o", "link"]
    before = lab.node.run(ports).stdout.count("port")
    lab.node.run(["ip", "netns", "del", name])
    act()
    deadline = time.monotonic() + 5
    while lab.node.run(ports).stdout.count("port") == before and time.monotonic() < deadline:
        pass
    return lab.node.run(ports).stdout.count("port") < before


def test_a_namespace_that_is_release_of_ends(lab: Lab, backend: Nftables) -> None:
    """A container's namespace goes when the container goes, though we wrote a wall into it."""
    brief = lab.host("brief", "192.0.2.50")
    backend.apply(brief.path, wall(brief, everywhere(29500, "peers")), None)
    backend.read_back(brief.path)
    living = inode_of(lab.node.path)
    assert _ends_with(lab, Path(brief.path).name, lambda: backend.release([living]))


def test_a_handle_that_rested_longest_makes_room(lab: Lab) -> None:
    """A process holds at most as many namespaces as it has low descriptors for."""
    brief = lab.host("brief", "192.0.2.50")
    library = Libnftables(most=2)
    for host in (brief, lab.node, lab.peer):
        library.run(host.path, "list ruleset")
    assert library.watches().keys() == {inode_of(lab.node.path), inode_of(lab.peer.path)}
    assert _ends_with(lab, Path(brief.path).name, lambda: None)


def test_a_refusal_holds_no_namespace(lab: Lab) -> None:
    """What an error remembers does not keep a namespace alive."""
    brief = lab.host("brief", "192.0.2.50")
    library = Libnftables()
    with pytest.raises(EnforceError):
        library.run(brief.path, "no such command")
    assert _ends_with(lab, Path(brief.path).name, lambda: library.release([]))


def test_a_handle_serves_every_thread(lab: Lab) -> None:
    """What one thread opened another uses, and lo keeps its name."""
    library = Libnftables()
    rule = (
        "add table inet vllmwall; add chain inet vllmwall c; add rule inet vllmwall c iif lo drop"
    )
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: library.run(lab.node.path, rule), range(8)))
        listings = list(pool.map(lambda _: library.show(lab.node.path, "list ruleset"), range(8)))
    assert set(listings) == {lab.node.run(["nft", "list", "ruleset"]).stdout}
    assert listings[0].count('iif "lo" drop') == 8


def test_children_inherit_no_handle(lab: Lab) -> None:
    """A program that we start and that outlives us does not go on owning our tables."""
    library = Libnftables()
    library.run(lab.node.path, "list ruleset")
    links = subprocess.run(
        ["sh", "-c", "ls -l /proc/self/fd"], close_fds=False, capture_output=True, check=True
    )
    descriptor = library._kept[inode_of(lab.node.path)].descriptor
    assert str(Path(f"/proc/self/fd/{descriptor}").readlink()) not in links.stdout.decode()


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
