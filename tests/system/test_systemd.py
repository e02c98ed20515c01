"""Boot, slice and scopes under a real systemd."""

from __future__ import annotations

import subprocess
import sys
import threading
from dataclasses import replace
from ipaddress import ip_network

import pytest

from tests.support.hammer import hammer
from tests.support.lab import Lab
from tests.support.walls import everywhere
from tests.system.box import ADDRESS, REPOSITORY, Box
from tests.system.units import NETWORK, UNITS
from vllmwall.enforce.boot import boot_script
from vllmwall.model import Wall

SCRIPT = "/var/lib/vllmwall/boot.nft"
SLICE = "/sys/fs/cgroup/vllmwall.slice"
SERVER = f"""[Unit]
DefaultDependencies=no
[Service]
ExecStart={sys.executable} {REPOSITORY}/tests/system/server.py %i
[Install]
WantedBy=sysinit.target
"""
# As Debian has it, and slow: whatever does not wait for it is flushed by it.
FLUSH = """[Unit]
DefaultDependencies=no
Wants=network-pre.target
Before=network-pre.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c "sleep 0.5; nft flush ruleset"
[Install]
WantedBy=sysinit.target
"""
# A slow disk: whatever does not wait for the wall is open meanwhile.
SLOW = "[Service]\nExecStartPre=sleep 0.5\n"
# As cloud-init has it: the network comes up before sysinit.target, which waits for it.
EARLY_NETWORK = """[Unit]
DefaultDependencies=no
Wants=network-pre.target
After=network.service
Before=network-online.target sysinit.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=true
[Install]
WantedBy=sysinit.target
"""
# The daemon's word on everything, from the real control socket.
GUARD = f"{REPOSITORY}/tests/system/says_guarded.py"


def install(host: Box, name: str) -> None:
    """A unit file of ours."""
    host.write(f"{UNITS}/{name}", (REPOSITORY / "systemd" / name).read_text())


def enable(host: Box, *units: str) -> None:
    """Before the box boots, by what each unit says of itself."""
    subprocess.run(["systemctl", "--quiet", f"--root={host.root}", "enable", *units], check=True)


@pytest.fixture
def server(host: Box) -> Box:
    """A host that listens before its network is up."""
    host.write(f"{UNITS}/network.service", NETWORK)
    host.write(f"{UNITS}/server@.service", SERVER)
    host.write(f"{UNITS}/nftables.service", FLUSH)
    install(host, "vllmwall-boot.service")
    host.write(f"{UNITS}/vllmwall-boot.service.d/slow.conf", SLOW)
    enable(host, "network.service", "server@29500.service", "nftables.service")
    enable(host, "vllmwall-boot.service")
    return host


def flood(lab: Lab, host: Box) -> tuple[int, int]:
    """Boot while a stranger hammers the port from before: how often it tried and got in."""
    booting = threading.Thread(target=host.boot)
    todo = [booting.start, booting.join]
    door = (ADDRESS, 29500)
    return hammer(lab.stranger, "tcp", door, 6.0, lambda: todo.pop(0)() if todo else None)


def test_no_stranger_comes_in_while_the_node_boots(lab: Lab, server: Box) -> None:
    """The saved wall is active before the first packet; without it the same flood gets in."""
    tried, opened = flood(lab, server)
    assert opened > 100
    server.power_off()
    entries = frozenset(everywhere(29500, "peers"))
    wall = Wall(0, entries, {"peers": (ip_network("192.0.2.2/32"),)})
    server.write(SCRIPT, boot_script(replace(wall, failsafe=frozenset({22}))))
    tried, opened = flood(lab, server)
    assert (True, 0) == (tried > 1000, opened)
    assert "active" == server.run("systemctl", "is-active", "vllmwall-boot").stdout.strip()


def test_a_broken_script_is_loud_and_the_boot_goes_on(server: Box) -> None:
    """Where the network comes early, as cloud-init has it, there is no ordering cycle either."""
    server.write(f"{UNITS}/early-network.service", EARLY_NETWORK)
    enable(server, "early-network.service")
    server.write(SCRIPT, "table inet vllmwall {\n\tchain input { nonsense }\n}\n")
    server.boot()
    asked = ("vllmwall-boot", "network", "early-network", "network-pre.target", "basic.target")
    states = server.run("systemctl", "is-active", *asked, check=False).stdout.split()
    assert ["failed", "active", "active", "active", "active"] == states
    journal = server.journal()
    assert "boot.nft:2" in journal
    assert "cycle" not in journal
    assert "vllmwall" not in server.run("nft", "list", "tables").stdout


def test_the_slice_keeps_its_number_while_its_units_come_and_go(host: Box) -> None:
    """There from boot on, so a guard on it needs no renewal."""
    install(host, "vllmwall.slice")
    enable(host, "vllmwall.slice")
    drop_in = REPOSITORY / "systemd/drop-ins/vllm@.service.d/10-vllmwall.conf"
    host.write(f"{UNITS}/vllm@.service", "[Service]\nExecStart=sleep 600\nRestart=always\n")
    host.write(f"{UNITS}/vllm@.service.d/10-vllmwall.conf", drop_in.read_text())
    host.boot()
    numbers = [number(host, SLICE)]
    units = []
    for verb in (("start",), ("restart",), ("kill", "-s", "KILL"), ("restart",), ("stop",)):
        host.run("systemctl", "reset-failed")
        host.run("systemctl", *verb, "vllm@a.service")
        numbers.append(number(host, SLICE))
        units.append(host.run("ls", SLICE).stdout.count("vllm@a.service"))
    assert 1 == len(set(numbers))
    assert [1, 1, 0] == [units[0], units[1], units[-1]]
    assert "" == host.run("systemd-analyze", "verify", "vllmwall.slice", "vllm@a.service").stderr


def number(host: Box, folder: str) -> str:
    return host.run("stat", "--format=%i", folder).stdout


def test_a_job_gets_a_scope_of_systemds(host: Box) -> None:
    """Below the slice, under its own pid, and gone with the job."""
    host.boot()
    daemon = [sys.executable, GUARD, "/run/vllmwall/control.sock"]
    host.run("systemd-run", f"--setenv=PYTHONPATH={REPOSITORY}", "--service-type=notify", *daemon)
    run = [sys.executable, "-m", "vllmwall", "run", "--name", "llama", "--"]
    done = host.run(*run, "sh", "-c", "echo $$; cat /proc/self/cgroup; exit 7", check=False)
    assert (7, "") == (done.returncode, done.stderr)
    assert "0::/vllmwall.slice/run-llama.scope\n" in done.stdout
    host.run(*run, "sh", "-c", "systemctl is-active run-llama.scope")
    taken = host.inside(*run, sys.executable, "-m", "vllmwall", "run", "--name", "llama", "true")
    done = host.run(*taken[taken.index("env") :], check=False)
    assert 125 == done.returncode
    assert "run-llama.scope" in done.stderr


def test_who_may_not_have_a_scope_is_told_by_polkit(host: Box) -> None:
    """An ordinary user without a service manager of his own."""
    host.boot()
    script = (
        "import os, runpy, sys; from vllmwall.cli.jobs import systemd; os.setuid(65534);"
        "systemd.enter('run-x.scope')"
    )
    done = host.run(sys.executable, "-c", script, check=False)
    assert "NotGuardedError: no scope for the job: systemd says:" in done.stderr
    assert "loginctl enable-linger 65534" in done.stderr
