"""The wheel, by a real pipx on Debian's own Python: units, a daemon that guards, nothing left.

Nothing but pipx and wheels: no compiler, no systemd-python. The tests share a node, in the order in
which it lives.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.building import built_wheel
from tests.support.lab import Lab
from tests.system import debian
from tests.system.box import box
from tests.system.installed import API, INTERNAL, Node
from tests.system.units import UNITS

pytestmark = pytest.mark.timeout(600)  # the first one makes a root
HOME, BIN = "/opt/pipx", "/usr/local/bin"
# Without the repository, which everything else in a box may import.
VLLMWALL = ["env", "-u", "PYTHONPATH", f"{BIN}/vllmwall"]
INSTALLED = f"{HOME}/venvs/vllmwall"
PIPX = ["env", "-u", "PYTHONPATH", f"PIPX_HOME={HOME}", f"PIPX_BIN_DIR={BIN}", "PIP_NO_INDEX=1"]
PIPX += ["PIP_FIND_LINKS=/srv/wheels", "/srv/pipx/bin/pipx"]


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ours, what it depends on, and pipx, for the Python of the box."""
    folder = tmp_path_factory.mktemp("wheels")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "-q"]
    ours = shutil.copy(built_wheel(), folder)
    fetch = [*pip, "download", "--only-binary=:all:", "--implementation=cp", "-d", str(folder)]
    fetch += ["--python-version=3.11", "--platform=manylinux2014_x86_64"]
    fetch += ["pip", "pipx", str(ours)]
    done = subprocess.run(fetch, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.skip(f"THE WHEEL IS NOT TESTED: no libraries for it: {done.stderr.strip()[-300:]}")
    return folder


@pytest.fixture(scope="module")
def node(wheels: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Node]:
    """A booted Debian 12 with a job, pipx and the wheels."""
    root = debian.root("bookworm", *debian.VENV)
    with Lab() as lab, box(tmp_path_factory.mktemp("wheel"), lab.stranger, root) as host:
        made = Node(lab, host)
        made.prepare()
        shutil.copytree(wheels, host.root / "srv/wheels")
        host.boot()
        host.run("python3", "-m", "venv", "/srv/pipx")
        pip = ["env", "-u", "PYTHONPATH", "/srv/pipx/bin/pip", "-q", "install", "--no-index"]
        host.run(*pip, "--find-links=/srv/wheels", "pipx")
        yield made


def test_pipx_and_one_command_are_all_it_takes(node: Node) -> None:
    """The units start what pipx installed; it is ready, it guards, its log is in the journal."""
    (ours,) = (node.box.root / "srv/wheels").glob("vllmwall-*.whl")
    done = node.box.run(*PIPX, "install", f"/srv/wheels/{ours.name}", check=False)
    assert 0 == done.returncode, done.stderr
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    said = node.box.run(*VLLMWALL, "install-units", "--enable").stdout
    assert f"Written: {UNITS}/vllmwall.service" in said
    assert node.guards()
    unit = (node.box.root / UNITS.lstrip("/") / "vllmwall.service").read_text()
    assert f"ExecStart={INSTALLED}/bin/vllmwall daemon\n" in unit
    line = node.box.run("systemctl", "show", "-P", "StatusText", "vllmwall").stdout
    assert "1 workload, 2 listeners guarded\n" == line
    entries = ["journalctl", "-o", "cat", "-u", "vllmwall", "VLLMWALL_WORKLOAD=job"]
    assert "workload appeared" in node.box.run(*entries).stdout


def test_the_doctor_names_what_runs_it(node: Node) -> None:
    """Python and the stand-in of that environment, the system's libnftables with its version."""
    answer = json.loads(node.box.run(*VLLMWALL, "doctor", "--json", check=False).stdout)
    seen = {one["subject"]: one["seen"] for one in answer["diagnoses"]}
    assert f"at {INSTALLED}/bin/python" in seen["Python"]
    ours = f"{INSTALLED}/lib/python3.11/site-packages/vllmwall/linux/systemd"
    assert f"a stand-in for systemd-python in {ours}" == seen["systemd's bindings"]
    assert seen["libnftables"].startswith("1.0.6 (/usr/lib/")
    assert [] == [one for one in answer["diagnoses"] if one["state"] == "fail"]


def test_a_reload_and_a_restart_work(node: Node) -> None:
    """By the units' own commands; what is wrong fails the reload."""
    node.reload()
    node.configure("[policy]\nnonsense = 5\n")
    assert 0 != node.box.run("systemctl", "reload", "vllmwall", check=False).returncode
    node.configure("")
    node.box.run("systemctl", "restart", "vllmwall")
    assert node.guards()


@pytest.mark.parametrize(
    ("lacking", "state", "says"),
    [
        ("CAP_SYS_PTRACE", "active", "Unknown: other users' processes cannot be looked into"),
        ("CAP_NET_ADMIN", "activating", "the wall is not as wanted: "),
    ],
)
def test_the_wall_stays_whatever_the_daemon_lacks(
    node: Node, lacking: str, state: str, says: str
) -> None:
    """A blind daemon is ready and removes nothing; one that cannot read the wall is restarted."""
    drop_in = f"{UNITS}/vllmwall.service.d/lacking.conf"
    node.box.write(drop_in, f"[Service]\nCapabilityBoundingSet=~{lacking}\nTimeoutStartSec=4s\n")
    node.box.run("systemctl", "daemon-reload")
    begun = node.box.run("systemctl", "restart", "vllmwall", check=False).returncode
    assert (state == "active") == (begun == 0)
    for _ in range(3):
        assert node.guards()
    shown = node.box.run("systemctl", "show", "-p", "ActiveState,StatusText", "vllmwall").stdout
    assert f"ActiveState={state}\n" in shown
    node.eventually(lambda: says in status_text(node), "it says so")
    node.box.run("rm", "-r", f"{UNITS}/vllmwall.service.d")
    node.box.run("systemctl", "daemon-reload")
    node.box.run("systemctl", "restart", "vllmwall")
    assert node.guards()


def status_text(node: Node) -> str:
    return node.box.run("systemctl", "show", "-P", "StatusText", "vllmwall").stdout


def test_removing_leaves_nothing(node: Node) -> None:
    """Units and wall by one command, the rest by pipx; the ports are open again."""
    node.box.run(*VLLMWALL, "install-units", "--remove")
    node.box.run(*PIPX, "uninstall", "vllmwall")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    people_s, pipx_s = {"/etc/vllmwall"}, {f"{HOME}/venvs/.vllmwall.lock"}
    assert set() == set(node.left()) - people_s - pipx_s
