"""The Debian package on Debian's own kernel, in a machine emulated by QEMU: `make test-qemu`.

By this name pytest does not collect it: it takes minutes, and has to be asked for. It shows what
boxes cannot: limits that limit, the process connector, a kernel that is not this machine's (6.1 on
Debian 12: no table of ours is owned there), guards in the kernel's first cgroup namespace, and a
whole boot. A stranger outside of the machine hammers all the while. SUITE=trixie: Debian 13.

The tests share the machine, in the order in which it lives.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.qemu.machine import UNITS, Machine, machine, root
from tests.support.building import NEW, built_package
from tests.support.hammer import hammer
from tests.support.lab import Lab
from tests.system.box import ADDRESS, REPOSITORY
from tests.system.installed import API, INTERNAL, JOB, JOB_COMMAND, Node

pytestmark = pytest.mark.timeout(1500)
SUITE = os.environ.get("SUITE", "bookworm")
KERNELS = {"bookworm": "6.1.", "trixie": "6.12."}
RUN = 29700
_PATIENCE = 240.0
_JOB = f"""[Unit]
StartLimitIntervalSec=0
[Service]
DynamicUser=yes
ExecStart={JOB_COMMAND}
Restart=always
[Install]
WantedBy=multi-user.target
"""
# Under emulation a start takes ten seconds, and a minute where the machine has other things to do.
_SLOW = "[Service]\nTimeoutStartSec=300s\nWatchdogSec=180s\n"
_LISTENER = f"import socket, time; s = socket.create_server(('0.0.0.0', {RUN})); time.sleep(1)"
# What the daemon does with the connector, by the package's own code.
_CONNECTOR = """import os, select, sys
sys.path.append("/usr/lib/vllmwall/site")
from vllmwall.observe.proc_connector import ConnectorEvents
events, seen = ConnectorEvents(), set()
started = os.spawnlp(os.P_NOWAIT, "true", "true")
while started not in seen and select.select([events], [], [], 60)[0]:
    seen |= {one.pid for one in events.read()}
print("told" if started in seen else seen, flush=True)
os._exit(0)
"""


class Emulated(Node):
    """A node that is a whole machine, and slow."""

    box: Machine  # type: ignore[assignment]

    def prepare(self) -> None:
        """A job and what we are taught about it; before the first boot."""
        self.box.write("/etc/hosts", "127.0.0.1 localhost node\n")
        self.box.write("/etc/hostname", "node\n")
        self.box.write(f"{UNITS}/job.service", _JOB)
        self.box.write(f"{UNITS}/vllmwall.service.d/slow.conf", _SLOW)
        self.box.write(JOB, (REPOSITORY / "tests/system/serving.py").read_text())
        wanted = self.box.root / "etc/systemd/system/multi-user.target.wants/job.service"
        wanted.parent.mkdir(parents=True, exist_ok=True)
        wanted.symlink_to(f"{UNITS}/job.service")
        package = built_package("deb", NEW)
        (self.box.root / "srv" / package.name).write_bytes(package.read_bytes())
        self.configure("")

    def sh(self, script: str) -> str:
        """What a script prints."""
        return self.box.run("sh", "-c", script).stdout

    def eventually(self, condition: Callable[[], object], what: str) -> None:
        """As on any node, with more patience."""
        deadline = time.monotonic() + _PATIENCE
        while not condition():
            assert time.monotonic() < deadline, f"not: {what}\n{self.box.journal()[-6000:]}"
            time.sleep(0.2)

    def hammered(self, port: int, seconds: float, step: Callable[[], object]) -> tuple[int, int]:
        """Let the stranger hammer a port, and take a step again and again."""
        tried, opened = hammer(self.lab.stranger, "tcp", (ADDRESS, port), seconds, _calling(step))
        print(f"{tried} tried, {opened} got in")
        return tried, opened


def _calling(step: Callable[[], object]) -> Callable[[], None]:
    def call() -> None:
        step()

    return call


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Emulated]:
    """A booted machine with a job, and the package where it can be installed from."""
    with Lab() as lab, machine(tmp_path_factory.mktemp("qemu"), lab.stranger, root(SUITE)) as made:
        emulated = Emulated(lab, made)
        emulated.prepare()
        begun = time.monotonic()
        made.boot()
        print(f"booted within {time.monotonic() - begun:.0f} s")
        assert ("open", "open") == (emulated.reached(API), emulated.reached(INTERNAL))
        yield emulated


def test_installing_is_all_it_takes(node: Emulated) -> None:
    """The doctor has nothing to mend on a stock kernel, and events come from tracefs."""
    assert node.sh("uname -r").startswith(KERNELS[SUITE])
    package = built_package("deb", NEW)
    begun = time.monotonic()
    node.box.run("apt-get", "install", "-y", "--no-install-recommends", f"/srv/{package.name}")
    print(f"installed within {time.monotonic() - begun:.0f} s on Linux {node.sh('uname -r')}")
    assert node.guards()
    assert "tracefs" == node.status()["daemon"]["events"]  # type: ignore[index]
    print(node.box.run("vllmwall", "doctor", "--all").stdout)


def test_what_the_unit_asks_for_it_gets(node: Emulated) -> None:
    """Limits of its cgroup, and what only a daemon with CAP_SYS_RESOURCE behind it may have."""
    group = "/sys/fs/cgroup/system.slice/vllmwall.service"
    assert ["536870912", "128"] == node.sh(f"cat {group}/memory.max {group}/pids.max").split()
    process = f"/proc/{node.daemon_pid()}"
    asked = f"cat {process}/oom_score_adj; cut -d' ' -f19 {process}/stat; grep -c . {process}/maps"
    assert ["-900", "-10"] == node.sh(asked).split()[:2]
    used = node.sh(f"cat {group}/memory.current {group}/memory.peak 2>/dev/null || true").split()
    print("memory now and at most:", [f"{int(one) >> 20} MiB" for one in used])


def test_out_of_memory_it_comes_back_and_the_wall_stood(node: Emulated) -> None:
    """Killed at every start for as long as the limit is too tight; nobody comes in meanwhile."""
    squeeze = ("systemctl", "set-property", "--runtime", "vllmwall.service")
    todo = [lambda: node.box.run(*squeeze, "MemoryMax=16M")]
    tried, opened = node.hammered(INTERNAL, 25, lambda: todo.pop()() if todo else time.sleep(0.2))
    assert (True, 0) == (tried > 1000, opened)
    killed = "vllmwall.service: A process of this unit has been killed by the OOM killer"
    print("killed for want of memory:", node.box.journal().count(killed))
    assert killed in node.box.journal()
    node.box.run(*squeeze, "MemoryMax=512M")
    node.eventually(lambda: node.box.run("vllmwall", "status", check=False).returncode == 0, "safe")


def test_no_stranger_comes_in_while_jobs_start_anew(node: Emulated) -> None:
    """A unit that was seen before gets its guard before its process; so does `vllmwall run`."""
    restarts, runs = [0], [0]

    def restart() -> None:
        node.box.run("systemctl", "restart", "job")
        restarts[0] += 1

    def run() -> None:
        node.box.run("vllmwall", "run", "--", "/usr/bin/python3", "-c", _LISTENER)
        runs[0] += 1

    assert 0 == node.hammered(INTERNAL, 20, restart)[1]
    assert 0 == node.hammered(RUN, 25, run)[1]
    print(f"{restarts[0]} restarts, {runs[0]} runs")
    assert restarts[0] > 2 and runs[0] > 0
    assert node.guards()


def test_only_jobs_are_guarded(node: Emulated) -> None:
    """Not the unit from which somebody said `vllmwall run`."""
    assert "agent.service" not in node.sh("cat /run/vllmwall/armed.json")


def test_a_flushed_wall_is_there_again(node: Emulated) -> None:
    """Where the kernel lets us own it nobody can flush it, so nobody comes in at all."""
    owned = "owned" == node.status()["namespaces"][0]["protection"]  # type: ignore[index]
    todo = [lambda: node.box.run("nft", "flush", "ruleset", check=False)] * 3
    opened = node.hammered(INTERNAL, 10, lambda: todo.pop()() if todo else time.sleep(0.5))[1]
    print("owned:", owned)
    assert (SUITE != "bookworm") == owned
    if owned:
        assert 0 == opened
    node.eventually(node.guards, "the wall is back")


def test_iptables_of_the_old_kind_stand_beside(node: Emulated) -> None:
    """They open nothing that we close, a redirection neither; and we leave them alone."""
    rules = "iptables-legacy -I INPUT -p tcp --dport 29600 -j ACCEPT; "
    rules += "iptables-legacy -A INPUT -p tcp --dport 8001 -j DROP; "
    rules += "iptables-legacy -t nat -A PREROUTING -p tcp --dport 9999 -j REDIRECT --to-ports 29600"
    node.sh(rules)
    before = node.sh("iptables-legacy -S; iptables-legacy -t nat -S")
    node.reload()
    node.box.run("systemctl", "restart", "vllmwall")
    assert ("open", "timeout", "timeout") == tuple(map(node.reached, (API, INTERNAL, 9999)))
    assert before == node.sh("iptables-legacy -S; iptables-legacy -t nat -S")
    node.sh("iptables-legacy -F; iptables-legacy -t nat -F")


def test_a_locked_down_kernel_is_asked_in_another_way(node: Emulated) -> None:
    """Without tracefs, by the process connector; and the wall guards as before."""
    node.sh("echo confidentiality >/sys/kernel/security/lockdown")
    node.box.run("systemctl", "restart", "vllmwall")
    daemon = node.status()["daemon"]
    assert "poll" == daemon["events"]  # type: ignore[index]
    assert "exec events from the connector" in daemon["events_reason"]  # type: ignore[index]
    assert "told\n" == node.box.run("/usr/lib/vllmwall/python", "-c", _CONNECTOR).stdout
    assert node.guards()
    doctor = node.box.run("vllmwall", "doctor", check=False).stdout
    assert "kernel lockdown: confidentiality" in doctor, doctor


def test_no_stranger_comes_in_over_a_reboot(node: Emulated) -> None:
    """From the kernel on: the wall of before, then the network, then the daemon."""
    with ThreadPoolExecutor() as beside:
        node.box.reboot()
        boot = beside.submit(node.box.wait_until_up)
        attempts = [node.hammered(INTERNAL, 10, lambda: time.sleep(0.2))]
        while not boot.done():
            attempts.append(node.hammered(INTERNAL, 10, lambda: time.sleep(0.2)))
        boot.result()
        attempts.append(node.hammered(INTERNAL, 5, lambda: time.sleep(0.2)))
    tried, opened = map(sum, zip(*attempts, strict=True))
    assert (True, 0) == (tried > 1000, opened)
    node.eventually(node.guards, "it guards after")
    journal = node.box.journal()
    assert "ordering cycle" not in journal
    steps = ("Finished vllmwall-boot.service", "Reached target network-pre", "eth0: Gained carrier")
    print(*(line for line in journal.splitlines() if any(one in line for one in steps)), sep="\n")
    assert sorted(steps, key=journal.index) == list(steps)
    assert "tracefs" == node.status()["daemon"]["events"]  # type: ignore[index]


def test_purging_leaves_nothing(node: Emulated) -> None:
    """No file, no unit, no group, no rule; and the port is open again."""
    node.box.run("rm", "-r", f"{UNITS}/vllmwall.service.d")  # ours
    node.box.run("apt-get", "purge", "-y", "vllmwall")
    assert ("open", "open") == (node.reached(API), node.reached(INTERNAL))
    assert [] == node.left()
