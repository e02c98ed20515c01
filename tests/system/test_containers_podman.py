"""Real Podman on a real Debian with our package, rootful and rootless, seen from outside.

The tests share a node; each one has its own containers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import pytest

from tests.support.building import NEW, built_package
from tests.system import debian
from tests.system.box import ADDRESS
from tests.system.containers import (
    API,
    GUARDED,
    INTERNAL,
    PEER,
    PUBLISHED,
    STRANGER,
    VLLM,
    ContainerNode,
    container_node,
)

pytestmark = [
    pytest.mark.timeout(600),  # the first one makes a root and builds a package
    pytest.mark.usefixtures("no_container_stays"),
]
# Debian's crun wants to raise limits, and its podman a controller that a box does not have.
SETTINGS = """[containers]
pids_limit = 0
default_ulimits = ["nofile=4096:4096", "nproc=4096:4096"]
[engine]
runtime = "runc"
"""
USER, UID = "alice", 1000
SESSION = (
    f"HOME=/home/{USER}",
    f"XDG_RUNTIME_DIR=/run/user/{UID}",
    f"DBUS_SESSION_BUS_ADDRESS=unix:path=/run/user/{UID}/bus",
)
# Her own root file system: no image to unpack.
BASE = f"/home/{USER}/base"
MADE = (
    f"useradd --create-home --uid {UID} {USER}; chmod 666 /dev/net/tun; "
    f"loginctl enable-linger {USER}; cd /home/{USER}; install -d -o {USER} base "
    "base/proc base/sys base/dev base/etc base/tmp base/run base/usr; "
    "for d in bin sbin lib lib64; do ln -s usr/$d base/$d; done"
)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerNode]:
    """Podman alone, with our package beside it and one peer."""
    with container_node(tmp_path_factory.mktemp("podman"), "podman") as made:
        made.mask("docker.service", "docker.socket", "containerd.service")
        made.box.write("/etc/containers/containers.conf", SETTINGS)
        made.box.boot()
        made.admit_visitors()
        made.import_image(debian.root("bookworm", *debian.CONTAINERS))
        made.said = made.install(built_package("deb", NEW))
        yield made


def test_the_hosts_network_is_closed_before_the_first_listen(node: ContainerNode) -> None:
    """A guard on the container's scope, when it starts first and when it starts again."""
    made: list[str] = []
    opened = node.hammered(
        lambda: made.append(node.serve("host", "--network=host")),
        lambda: node.box.run("podman", "restart", "-t", "0", "host"),
        seconds=7,
    )
    assert 0 == opened
    node.eventually(lambda: node.outside(STRANGER, PEER) == [GUARDED, ("open",) * 2], "guarded")
    assert "active" == node.guard(made[0])


def test_a_job_that_listens_at_once_may_restart_often(node: ContainerNode) -> None:
    """Its scope comes again under the same path, and is guarded before a process is in it."""
    assert 0 == node.restarts_of_a_quick_job(20)


def test_published_ports_meet_the_wall_in_the_container(node: ContainerNode) -> None:
    """Behind netavark's DNAT, from the first packet on; its rules stay as they are."""
    made: list[str] = []
    assert 0 == node.hammered(lambda: made.append(node.serve("published", *PUBLISHED)))
    assert [GUARDED, ("open", "open")] == node.outside(STRANGER, PEER)
    assert "active" == node.guard(made[0])
    before = node.others_rules()
    assert "NETAVARK-DN-" in before
    node.box.run("vllmwall", "down")
    assert [("open", "open")] == node.outside(STRANGER)
    node.box.run("vllmwall", "up", check=False)
    assert [GUARDED] == node.outside(STRANGER)
    assert before == node.others_rules()


@pytest.mark.usefixtures("published")
def test_podmans_network_works_as_before(node: ContainerNode) -> None:
    """From the host, between containers and out."""
    node.start("other")
    inside = node.ip("published")
    server = node.lab.stranger.listen(STRANGER, 9000)
    ways = [
        ("other", STRANGER, 9000),
        ("", ADDRESS, API),
        ("", inside, API),
        ("other", inside, API),
    ]
    found = [node.talk_from(*way) for way in ways]
    server.close()
    assert ["open"] * len(ways) == found
    assert "timeout" == node.talk_from("other", inside, INTERNAL)  # no peer either


@pytest.mark.usefixtures("published")
def test_explain_says_what_packets_find(node: ContainerNode) -> None:
    """And where Podman sends them."""
    handed_on = f"Podman forwards tcp port {INTERNAL} to {node.ip('published')}:{INTERNAL}"
    for source, verdict in ((STRANGER, "closed"), (PEER, "open")):
        said = json.loads(node.ask("explain", source, str(INTERNAL), "--json").stdout)
        assert [verdict] == [one["verdict"] for one in said["answers"]]
        assert any(handed_on in problem for problem in said["problems"]), said["problems"]


@pytest.mark.usefixtures("published")
def test_doctor_and_prove_find_nothing_to_fix(node: ContainerNode) -> None:
    """With a container that publishes its ports."""
    doctor = node.ask("doctor", "--json").stdout
    assert '"fail"' not in doctor, doctor
    proof = node.ask("prove")
    assert 0 == proof.returncode, proof.stdout + proof.stderr


@pytest.fixture
def alice(node: ContainerNode) -> Iterator[Callable[..., str]]:
    """Runs a command of hers, with a service manager of her own; what it printed."""
    node.box.run("sh", "-c", MADE)

    def run(*argv: str) -> str:
        words = ("runuser", "-u", USER, "--", "env", "-C", f"/home/{USER}", *SESSION, *argv)
        return node.box.run(*words).stdout.strip()

    node.eventually(lambda: run("systemctl", "--user", "is-system-running"), "her manager runs")
    yield run
    node.box.run("loginctl", "terminate-user", USER, check=False)


def test_what_a_rootless_container_publishes_is_guarded_on_the_host(
    node: ContainerNode, alice: Callable[..., str]
) -> None:
    """A proxy of hers connects from inside, over lo, where no wall can tell who asks."""
    mounts = ("-v", "/usr:/usr:ro", "-v", f"{VLLM}:/srv/vllm:ro")
    run = ("podman", "--storage-driver=vfs", "run", "--detach", *PUBLISHED, *mounts, "--rootfs")
    made = alice(*run, BASE, "/srv/vllm", "serve", "tiny")
    node.eventually(lambda: node.outside(STRANGER, PEER) == [GUARDED, ("open",) * 2], "guarded")
    assert "active" == node.guard(made)
    explained = json.loads(node.ask("explain", STRANGER, str(INTERNAL), "--json").stdout)
    assert {"closed"} == {one["verdict"] for one in explained["answers"]}
    proof = node.ask("prove")
    assert 0 == proof.returncode, proof.stdout + proof.stderr
