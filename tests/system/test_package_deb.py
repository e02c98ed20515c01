"""The Debian package on real Debian systems: installed, used, upgraded, rebooted, removed.

The tests share a node for each suite, in the order in which a node lives; each one leaves it
guarding, but for the last one, which leaves nothing.
"""

from __future__ import annotations

import threading

import pytest

from tests.support.building import NEW, OLD, built_package
from tests.system.box import REPOSITORY
from tests.system.installed import API, INTERNAL, Node, answers, while_hammered

pytestmark = pytest.mark.timeout(600)  # the first one makes a root and builds packages
every_suite = pytest.mark.every_suite
TORCH = REPOSITORY / ".venv-torch/bin/python"
WORST_EXPOSURE = 37  # tenths, as `systemd-analyze security` counts
FOUND = ("workloads", "open to all", "adopted", "closed", "next")
WATCHDOG = "[Service]\nWatchdogSec=2s\nTimeoutAbortSec=1s\n"


@every_suite
def test_installing_is_all_it_takes(node: Node) -> None:
    """It runs, is ready, guards, leaves the API open and says so in a few lines."""
    assert node.guards()
    state = node.box.run("systemctl", "is-active", "vllmwall.service", "vllmwall.slice").stdout
    assert ["active", "active"] == state.split()
    welcome = (REPOSITORY / "packaging/root/welcome").read_text().splitlines()
    assert node.said.splitlines()[-len(welcome) :] == welcome
    heads = [one for line in node.said.splitlines() for one in FOUND if line.startswith(f"{one}  ")]
    assert [*FOUND] == heads
    assert f"version {OLD}" in node.box.run("vllmwall", "--version").stdout
    line = node.box.run("systemctl", "show", "-P", "StatusText", "vllmwall").stdout
    assert "1 workload, 2 listeners guarded\n" == line


def test_real_torch_is_guarded(node: Node) -> None:
    """The store of torchrun, by packets; of this repository's own torch."""
    if node.box.run(str(TORCH), "-c", "import torch", check=False).returncode != 0:
        pytest.skip("no .venv-torch that runs in the box")
    train = [str(TORCH), "-m", "torch.distributed.run", "--nproc-per-node=1", "--master-port=29500"]
    train += ["--master-addr=127.0.0.1", f"{REPOSITORY}/tests/workloads/train.py", "--steps=9999"]
    node.box.run("systemd-run", "--quiet", "--unit=train", *train, "--pause=0.5")
    listens = ("ss", "-Hltn", "sport = :29500")
    node.eventually(lambda: node.box.run(*listens).stdout, "torch listens")
    node.eventually(lambda: node.reached(29500) == "timeout", "torch's store is closed")
    node.eventually(lambda: "step 2" in node.box.journal(), "torch trains")
    node.box.run("systemctl", "stop", "train")


def test_reload_says_whether_it_worked(node: Node) -> None:
    """An exit status for a bad configuration, and the old one stays."""
    assert 0 == node.box.run("systemctl", "reload", "vllmwall").returncode
    node.configure("[policy]\nnonsense = 5\n")
    assert 0 != node.box.run("systemctl", "reload", "vllmwall", check=False).returncode
    assert node.guards()
    node.configure("")
    assert 0 == node.box.run("systemctl", "reload", "vllmwall").returncode
    assert "active" == node.box.run("systemctl", "is-active", "vllmwall").stdout.strip()


@pytest.mark.parametrize("number", ["KILL", "STOP"])
def test_a_daemon_that_dies_or_hangs_is_replaced(node: Node, number: str) -> None:
    """By systemd, with the wall standing all the while and connections alive."""
    node.box.write("/etc/systemd/system/vllmwall.service.d/watchdog.conf", WATCHDOG)
    node.box.run("systemctl", "daemon-reload")
    node.box.run("systemctl", "restart", "vllmwall")
    before, connection = node.daemon_pid(), node.talk()
    tried, opened = while_hammered(node, lambda: replace(node, number, before))
    assert (True, 0) == (tried > 500, opened), tried
    with connection:
        assert answers(connection)


def replace(node: Node, number: str, before: int) -> None:
    node.box.run("systemctl", "kill", "--kill-whom=main", f"--signal={number}", "vllmwall")
    node.eventually(lambda: node.daemon_pid() not in (0, before), "a new daemon")
    node.eventually(lambda: node.status()["safe"], "it is ready")


@every_suite
def test_an_upgrade_drops_nothing_and_opens_nothing(node: Node) -> None:
    """New code runs (not the old one's .pyc), edits stay, a connection through the API too."""
    config = node.box.root / "etc/vllmwall/vllmwall.toml"
    edited = config.read_text() + "\n# edited\n"
    config.write_text(edited)
    before, connection = node.daemon_pid(), node.talk()
    new = built_package("deb", NEW)
    tried, opened = while_hammered(node, lambda: node.install(new))
    assert (True, 0) == (tried > 500, opened), tried
    with connection:
        assert answers(connection)
    assert edited == config.read_text()
    assert node.daemon_pid() not in (0, before)
    assert f"version {NEW}" in node.box.run("vllmwall", "--version").stdout
    assert NEW == node.status()["daemon"]["version"]  # type: ignore[index]


def test_what_root_disabled_stays_so(node: Node) -> None:
    """Over an upgrade, too; neither is it started."""
    node.box.run("systemctl", "disable", "--now", "vllmwall.service")
    node.box.run("dpkg", "--install", node.put(built_package("deb", NEW)))
    said = node.box.run("systemctl", "is-enabled", "vllmwall.service", check=False).stdout
    assert "disabled" == said.strip()
    assert 0 == node.daemon_pid()
    node.box.run("systemctl", "enable", "--now", "vllmwall.service")


@every_suite
def test_no_stranger_comes_in_over_a_reboot(node: Node) -> None:
    """The saved wall is active before the network is up; then the daemon takes it over."""
    node.eventually(node.guards, "it guards before")
    node.box.power_off()
    booting = threading.Thread(target=node.box.boot)
    guards = (node.guards, "it guards after")
    tried, opened = while_hammered(
        node, booting.start, booting.join, lambda: node.eventually(*guards)
    )
    assert (True, 0) == (tried > 500, opened), tried
    journal = node.box.journal()
    assert "ordering cycle" not in journal


@every_suite
def test_the_unit_is_as_closed_as_it_can_be(node: Node) -> None:
    """Found by measuring, so that no line goes unnoticed."""
    limit = f"--threshold={WORST_EXPOSURE}"
    done = node.box.run("systemd-analyze", "security", limit, "vllmwall.service", check=False)
    assert 0 == done.returncode, done.stdout[-300:]
    granted = node.box.run("systemctl", "show", "-P", "CapabilityBoundingSet", "vllmwall").stdout
    assert len(granted.split()) <= 9
    units = ("vllmwall.service", "vllmwall-boot.service", "vllmwall-flush.service")
    said = node.box.run("systemd-analyze", "verify", "--man=no", *units, check=False).stderr
    assert "vllmwall" not in said


@every_suite
def test_it_is_quick_and_small(node: Node) -> None:
    """Far above what is measured, since machines that test are busy: see the benchmarks."""
    node.box.run("systemctl", "restart", "vllmwall")
    status = node.box.run("cat", f"/proc/{node.daemon_pid()}/status").stdout
    (resident,) = [int(line.split()[1]) for line in status.splitlines() if "VmRSS" in line]
    asked = [f"--property={one}TimestampMonotonic" for one in ("InactiveExit", "ActiveEnter")]
    shown = node.box.run("systemctl", "show", *asked, "vllmwall").stdout.split()
    begun, ready = sorted(int(one.partition("=")[2]) for one in shown)
    print(f"ready after {(ready - begun) / 1e6:.2f} s, {resident / 1024:.0f} MB resident")
    assert resident < 64 * 1024
    assert ready - begun < 4e6


@every_suite
def test_purging_leaves_nothing(node: Node) -> None:
    """No file, no unit, no group, no rule, no trace instance; and the port is open again."""
    node.box.run("rm", "-rf", "/etc/systemd/system/vllmwall.service.d")  # a test's
    node.box.run("apt-get", "purge", "-y", "vllmwall")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    assert [] == node.left()
