"""Real Docker on a real Debian with our package: what containers open, seen from outside.

The tests share a node; each one has its own containers.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import sys
from collections.abc import Iterator

import pytest

from tests.support.building import NEW, built_package
from tests.system import debian
from tests.system.box import ADDRESS, REPOSITORY
from tests.system.containers import (
    ADDRESS6,
    API,
    GUARDED,
    INTERNAL,
    PEER,
    PEER6,
    PUBLISHED,
    STRANGER,
    STRANGER6,
    ContainerNode,
    container_node,
)
from tests.system.installed import answers

pytestmark = [
    pytest.mark.timeout(600),  # the first one makes a root and builds a package
    pytest.mark.usefixtures("no_container_stays"),
]
SETTINGS = "/etc/docker/daemon.json"
WITHOUT_PROXY = {
    "userland-proxy": False,
    "live-restore": True,
    "ipv6": True,
    "fixed-cidr-v6": "fd00:d0c::/64",
    "ip6tables": True,
    "experimental": True,
}
TORCH = REPOSITORY / ".venv-torch"


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ContainerNode]:
    """Docker as it comes, with our package beside it and one peer."""
    with container_node(tmp_path_factory.mktemp("docker"), "docker") as made:
        made.box.boot()
        made.admit_visitors()
        made.import_image(debian.root("bookworm", *debian.CONTAINERS))
        made.said = made.install(built_package("deb", NEW))
        yield made


@pytest.fixture(scope="module")
def without_proxy(node: ContainerNode) -> None:
    """Docker without docker-proxy, with IPv6, and with containers that outlive it."""
    node.box.write(SETTINGS, json.dumps(WITHOUT_PROXY))
    node.box.run("systemctl", "restart", "docker")


def test_the_hosts_network_is_closed_before_the_first_listen(node: ContainerNode) -> None:
    """A guard on the container's scope; peers and the public API come through."""
    made: list[str] = []
    assert 0 == node.hammered(lambda: made.append(node.serve("host", "--network=host")))
    assert [GUARDED, ("open", "open")] == node.outside(STRANGER, PEER)
    assert "active" == node.guard(f"/docker-{made[0]}.scope")


def test_a_container_that_starts_again_is_closed_again(node: ContainerNode) -> None:
    """Under the same name it has a new cgroup; and killed it leaves no rule behind."""
    node.serve("host", "--network=host")
    assert 0 == node.hammered(lambda: node.box.run("docker", "restart", "-t", "0", "host"))
    node.eventually(lambda: node.outside(STRANGER, PEER) == [GUARDED, ("open",) * 2], "as before")
    node.box.run("docker", "kill", "host")
    ours = ("nft", "list", "map", "inet", "vllmwall", "any4")
    node.eventually(lambda: str(INTERNAL) not in node.box.run(*ours).stdout, "its rules are gone")


def test_a_job_that_listens_at_once_may_restart_often(node: ContainerNode) -> None:
    """Its scope comes again under the same path, and is guarded before a process is in it."""
    assert 0 == node.restarts_of_a_quick_job(20)


def test_real_torch_trains_on_in_a_container(node: ContainerNode) -> None:
    """The store of torchrun is closed to strangers, open to peers, and the job goes on."""
    python = str(TORCH / "bin/python")
    if node.box.run(python, "-c", "", check=False).returncode != 0:
        pytest.skip("no .venv-torch that runs in the box")
    paths = {str(TORCH.resolve()), sys.base_prefix}  # the box has both
    binds = [word for path in paths for word in ("-v", f"{path}:{path}:ro")]
    train = (python, "-m", "torch.distributed.run", "--nproc-per-node=1", "--master-port=29500")
    script = (f"{REPOSITORY}/tests/workloads/train.py", "--steps=9999", "--pause=0.2")
    made = node.start("torch", "--network=host", *binds, command=(*train, *script))
    said = ("docker", "logs", "torch")
    node.eventually(lambda: "step 1 " in node.box.run(*said).stdout, "it trains")
    found = [node.lab.stranger.connect(ADDRESS, INTERNAL, source=one) for one in (STRANGER, PEER)]
    assert ["timeout", "open"] == found
    assert "active" == node.guard(f"/docker-{made}.scope")
    steps = node.box.run(*said).stdout.count("step ")
    node.eventually(lambda: node.box.run(*said).stdout.count("step ") > steps + 2, "it trains on")


def test_published_ports_meet_the_wall_in_the_container(node: ContainerNode) -> None:
    """Behind DNAT and the forward hook; who comes by the proxy over IPv6 looks like the host."""
    made: list[str] = []
    assert 0 == node.hammered(lambda: made.append(node.serve("published", *PUBLISHED)))
    assert [GUARDED, ("open", "open")] == node.outside(STRANGER, PEER)
    assert [("open", "silent")] * 2 == node.outside(STRANGER6, PEER6)
    assert "active" == node.guard(f"/docker-{made[0]}.scope")


@pytest.mark.usefixtures("published")
def test_dockers_network_works_as_before(node: ContainerNode) -> None:
    """From the host, between containers, to published ports, and out."""
    node.start("other")
    inside = node.ip("published")
    with contextlib.closing(node.lab.stranger.listen(STRANGER, 9000)):
        assert "open" == node.talk_from("other", STRANGER, 9000)
    for name, address in (
        ("", "127.0.0.1"),
        ("", ADDRESS),
        ("", inside),
        ("other", inside),
        ("other", ADDRESS),
    ):
        assert "open" == node.talk_from(name, address, API), (name, address)
    assert "timeout" == node.talk_from("other", inside, INTERNAL)  # no peer either


@pytest.mark.usefixtures("published")
def test_explain_says_what_packets_find(node: ContainerNode) -> None:
    """In the container's namespace, and nothing of the host's, which such a packet passes by."""
    inside = node.ip("published")
    for source, port in itertools.product((STRANGER, PEER), (API, INTERNAL)):
        said = json.loads(node.ask("explain", source, str(port), "--json").stdout)
        (answer,) = said["answers"]
        found = "open" if node.talk_from_outside(port, source) == "open" else "closed"
        assert (found, found) == (answer["verdict"], said["verdict"])
        assert (inside, port) == (answer["address"], answer["port"])
        handed_on = f"Docker forwards tcp port {port} to {inside}:{port}"
        assert any(handed_on in problem for problem in said["problems"]), said["problems"]


@pytest.mark.usefixtures("published")
def test_doctor_and_prove_find_nothing_to_fix(node: ContainerNode) -> None:
    """The doctor knows where published ports lead; prove's packets meet what is expected."""
    doctor = node.ask("doctor", "--json").stdout
    assert '"fail"' not in doctor, doctor
    assert f"published port {INTERNAL}" in doctor
    proof = node.ask("prove")
    assert 0 == proof.returncode, proof.stdout + proof.stderr


@pytest.mark.usefixtures("published")
def test_dockers_rules_are_its_own(node: ContainerNode) -> None:
    """Byte for byte, while our wall comes down, up and through a restart of the daemon."""
    before = node.others_rules()
    assert "-A DOCKER" in before
    node.box.run("vllmwall", "down")
    assert before == node.others_rules()
    assert [("open", "open")] == node.outside(STRANGER)
    node.box.run("vllmwall", "up", check=False)
    assert [GUARDED] == node.outside(STRANGER)
    with node.lab.stranger.dial(ADDRESS, API, source=STRANGER) as connection:
        assert 0 == node.hammered(lambda: node.box.run("systemctl", "restart", "vllmwall"))
        assert answers(connection)
    assert before == node.others_rules()


def test_docker_starts_again_and_its_containers_too(node: ContainerNode) -> None:
    """It writes its rules again, and ours stay; containers have new namespaces, walled again."""
    node.serve("again", *PUBLISHED, "--restart=always")
    ours = ("nft", "-s", "list", "chain", "inet", "vllmwall", "input")
    before = node.box.run(*ours).stdout
    assert 0 == node.hammered(lambda: node.box.run("systemctl", "restart", "docker"))
    node.eventually(lambda: node.outside(STRANGER, PEER) == [GUARDED, ("open",) * 2], "as before")
    assert before == node.box.run(*ours).stdout


@pytest.mark.usefixtures("without_proxy")
def test_without_a_proxy_both_families_are_guarded(node: ContainerNode) -> None:
    """IPv6 is routed to the container as IPv4 is, so strangers and peers keep their addresses."""
    node.serve("both", *PUBLISHED, host="::")
    found = [GUARDED, ("open", "open")] * 2
    assert found == node.outside(STRANGER, PEER, STRANGER6, PEER6)
    assert "open" == node.talk_from("", "127.0.0.1", API)
    assert "open" == node.talk_from("", ADDRESS6, API)


@pytest.mark.usefixtures("without_proxy")
def test_containers_that_outlive_docker_stay_guarded(node: ContainerNode) -> None:
    """live-restore: connections live, and no stranger comes in meanwhile."""
    node.serve("living", *PUBLISHED, host="::")
    with node.lab.stranger.dial(ADDRESS, API, source=STRANGER) as connection:
        assert 0 == node.hammered(lambda: node.box.run("systemctl", "restart", "docker"))
        assert answers(connection)
    assert [GUARDED, ("open", "open")] == node.outside(STRANGER6, PEER6)
