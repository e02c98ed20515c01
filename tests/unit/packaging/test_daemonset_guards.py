"""With what the DaemonSet gives it and no more, the daemon guards the node from outside.

The manifest's capabilities, mounts and read-only root, without a container engine: the daemon
runs in a mount namespace and with a bounding set that are read from it. The workload belongs to
another user and is in neither.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import pytest
import yaml

from tests.support.cgroups import cgroup, inside
from tests.support.guarded import PEERS, RANK, Guarded, Program, eventually
from tests.support.lab import Lab

pytestmark = [
    pytest.mark.kernel,
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: builds network namespaces"),
    pytest.mark.skipif(shutil.which("setpriv") is None, reason="needs setpriv (util-linux)"),
]
MANIFEST = Path(__file__).parents[3] / "packaging/kubernetes/base/daemonset.yaml"
NODE, PORT, NOBODY = "192.0.2.1", 29500, 65534


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as made:
        yield made


@pytest.fixture
def folder() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="vwds"))
    made.chmod(0o755)
    yield made
    shutil.rmtree(made)


def confined(folder: Path, left_out: Collection[str]) -> str:
    """A script that makes ``"$@"`` run as the manifest says."""
    spec = yaml.safe_load(MANIFEST.read_text())["spec"]["template"]["spec"]
    container = spec["containers"][0]
    capabilities = {*container["securityContext"]["capabilities"]["add"]} - {*left_out}
    mounted = {one["mountPath"] for one in container["volumeMounts"]}
    assert {"/sys/fs/cgroup", "/sys/kernel/tracing"} < mounted
    bounding = ",".join(["-all", *(f"+{one.lower()}" for one in sorted(capabilities))])
    return " && ".join(
        [
            "mount --make-rprivate /",
            f"mount --bind {folder} {folder}",
            "mount -t cgroup2 none /sys/fs/cgroup",
            "mount -o remount,bind,ro /sys/fs/cgroup",
            "mount -o remount,bind,ro /sys",
            "mount -o remount,bind,ro /",
            f'set -- setpriv --bounding-set={bounding} --inh-caps=-all "$@"',
        ]
    )


def daemon(lab: Lab, folder: Path, *left_out: str) -> Guarded:
    made = Guarded(lab, folder, before=confined(folder, left_out))
    made.configure(PEERS)
    return made


def rank(node: Guarded, place: Path) -> Program:
    """Torch's rendezvous, as another user, in a cgroup of its own."""
    library = node.folder / "libtorch_cpu.so"
    library.write_bytes(b"not really")
    env = {**os.environ, "RANK": "0", "WORLD_SIZE": "2", "LOCAL_RANK": "0"}
    env |= {"MASTER_ADDR": NODE, "MASTER_PORT": str(PORT), "LIBTORCH": str(library)}
    # A rank of another user has files in /proc that are that user's.
    env |= {"RUN_AS": str(NOBODY), "DUMPABLE": "1"}
    made = node._program([*inside(place, [sys.executable, "-c", RANK])], env)
    made.open("tcp", "0.0.0.0", PORT)
    return made


@pytest.mark.timeout(60)
def test_a_workload_outside_is_guarded(lab: Lab, folder: Path) -> None:
    """Strangers are kept out, peers come in, by a guard and by events, not by looking around."""
    node = daemon(lab, folder)
    node.start()
    with cgroup(f"/vwds-{os.getpid()}.service") as place:
        rank(node, place)
        eventually(lambda: lab.stranger.connect(NODE, PORT) == "timeout", "closed", node.log)
        assert "open" == lab.peer.connect(NODE, PORT)
        status = node.ask("status")
        states = [one["guard"]["state"] for one in status["workloads"]]  # type: ignore[attr-defined]
        assert ["active"] == states
        assert "tracefs" == status["daemon"]["events"]  # type: ignore[index]
        assert 0 == node.stop()
        assert "timeout" == lab.stranger.connect(NODE, PORT), "the wall went with its daemon"


@pytest.mark.parametrize(
    ("left_out", "stranger"),
    [("", "timeout"), ("NET_ADMIN", "open"), ("SYS_PTRACE", "open"), ("DAC_READ_SEARCH", "open")],
)
def test_no_capability_is_asked_for_in_vain(
    left_out: str, stranger: str, lab: Lab, folder: Path
) -> None:
    """Without one of them the stranger comes in. (SYS_ADMIN is for pods: docs/how-to.)"""
    node = daemon(lab, folder, left_out)
    with cgroup(f"/vwds-{os.getpid()}.service") as place:
        rank(node, place)  # first: it was root's until it dropped that, and could be read then
        node.start()
        assert stranger == lab.stranger.connect(NODE, PORT)
        status = node.ask("status")
        assert (not left_out) == (status["safe"] is True), "open, and called safe"
        if left_out != "NET_ADMIN":  # without it the verdict has the words of nftables
            assert left_out in str(status["verdict"])
        node.stop()
