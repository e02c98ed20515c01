"""A whole machine with Debian's own kernel, emulated in software by QEMU.

What a box (`tests.system.box`) cannot have: cgroup controllers that limit, the first pid namespace,
a kernel that is not this machine's, a boot from the kernel on. It is slow (a boot takes half a
minute and more), and it never uses /dev/kvm. One cable leads to a host of the lab.
"""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from pyroute2 import IPRoute

from tests.support.lab import Host
from tests.system.box import ADDRESS, REPOSITORY

UNITS = "/etc/systemd/system"
_INCLUDED = (
    "systemd,systemd-sysv,dbus,udev,kmod,nftables,libnftables1,iptables,iproute2,netbase,procps,"
    "python3,ipvsadm,linux-image-cloud-amd64,initramfs-tools,zstd,busybox"
)
_BOOTS = 300.0  # seconds: under emulation, on a machine that does other things
_RUNS = 300.0
_APPEND = "root=/dev/vda rw console=ttyS0 net.ifnames=0 mitigations=off panic=-1"
_AGENT = """[Unit]
DefaultDependencies=no
Conflicts=shutdown.target
[Service]
ExecStart=/usr/bin/python3 /srv/agent.py
OOMScoreAdjust=-1000
[Install]
WantedBy=sysinit.target
"""
_INIT = """#!/bin/sh
mount -t proc none /proc; mount -t sysfs none /sys; mount -t devtmpfs none /dev
mkdir -p /dev/pts /dev/shm; mount -t devpts none /dev/pts
mount -t tmpfs none /run; mount -t tmpfs none /tmp; chmod 1777 /tmp
mount -t cgroup2 none /sys/fs/cgroup; mkdir -p /run/netns
modprobe -a virtio_console virtio_rng; ip link set lo up; hostname machine
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/usr/bin/python3 /srv/agent.py
"""
# As a server has it: systemd's own, ordered by systemd's own units.
_NETWORK = f"""[Match]
Type=ether
[Network]
Address={ADDRESS}/32
LinkLocalAddressing=no
[Route]
Destination=0.0.0.0/0
Scope=link
"""


class Machine:
    """One such machine, with the interface of a `Box` as far as tests share it."""

    def __init__(self, folder: Path, neighbour: Host, root: Path) -> None:
        self.root = folder / "root"
        self._folder = folder
        self._neighbour = neighbour
        self._kernel, self._initrd = (
            next((root / "boot").glob(f"{one}-*")) for one in ("vmlinuz", "initrd.img")
        )
        self._console = folder / "console"
        self._process: subprocess.Popen[bytes] | None = None
        self._line: socket.socket | None = None
        self._heard = b""
        self._boot = ""

    def write(self, path: str, text: str) -> None:
        """Write a file, whether the machine runs or not."""
        if self._process is None:
            file = self.root / path.lstrip("/")
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        else:
            data = base64.b64encode(text.encode()).decode()
            self._ask({"write": path, "data": data}, _RUNS)

    def boot(self) -> None:
        """For the first time: what was written becomes its disk. Until systemd says it is up."""
        self.write(f"{UNITS}/agent.service", _AGENT)
        self.write("/etc/systemd/network/cable.network", _NETWORK)
        enable = ["systemctl", "--quiet", f"--root={self.root}", "enable"]
        subprocess.run([*enable, "agent.service", "systemd-networkd.service"], check=True)
        disk = self._disk()
        self._neighbour.call(_lay_cable)
        self._started(self._command(disk))
        self.wait_until_up()

    def boot_without_systemd(self) -> None:
        """A shell script is its first process, and it has no network but its own: 20 seconds."""
        self.write("/srv/init", _INIT)
        (self.root / "srv/init").chmod(0o755)
        self._started(self._machine(self._disk(), f"{_APPEND} init=/srv/init"))
        self._answer(time.monotonic() + _BOOTS)

    def _disk(self) -> Path:
        made = self._folder / "disk"
        self.write("/srv/agent.py", Path(__file__).with_name("agent.py").read_text())
        make = ["mke2fs", "-q", "-t", "ext4", "-d", str(self.root), str(made), "1500M"]
        subprocess.run(make, check=True, stdout=subprocess.DEVNULL)
        return made

    def _started(self, command: list[str]) -> None:
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
        self._line = self._connected()

    def reboot(self) -> None:
        """Begin to; `wait_until_up` sees the end of it."""
        self._send({"argv": ["systemctl", "reboot"], "timeout": _RUNS})

    def wait_until_up(self) -> None:
        """Until a boot that is not the last one has ended."""
        deadline = time.monotonic() + _BOOTS
        while self._boot == (said := self._answer(deadline).get("boot", self._boot)):
            pass
        self._boot = str(said)
        while self.run("systemctl", "is-system-running", check=False).stdout.strip() not in (
            "running",
            "degraded",
        ):
            assert time.monotonic() < deadline, self._shown()
            time.sleep(0.2)

    def power_off(self) -> None:
        """By pulling the plug."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
        if self._line is not None:
            self._line.close()

    def run(
        self, *argv: str, check: bool = True, patience: float = _RUNS
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end, which comes within so many seconds."""
        said = self._ask({"argv": argv, "timeout": patience}, patience + 30)
        done = subprocess.CompletedProcess(
            argv, int(str(said["status"])), str(said["out"]), str(said["err"])
        )
        if check:
            assert 0 == done.returncode, (argv, done.stdout, done.stderr)
        return done

    def journal(self) -> str:
        """Of this boot, with the time since the kernel began."""
        return self.run("journalctl", "-b", "--no-pager", "-o", "short-monotonic").stdout

    def _command(self, disk: Path) -> list[str]:
        cable = ["-netdev", "tap,id=net,ifname=cable,script=no,downscript=no"]
        cable += ["-device", "virtio-net-pci,netdev=net,romfile="]
        return ["nsenter", f"--net={self._neighbour.path}", *self._machine(disk, _APPEND), *cable]

    def _machine(self, disk: Path, append: str) -> list[str]:
        """The command line without a network."""
        machine = ["qemu-system-x86_64", "-machine", "pc", "-accel", "tcg", "-cpu", "qemu64"]
        machine += ["-smp", "2", "-m", "1024", "-nodefaults", "-display", "none"]
        machine += ["-kernel", str(self._kernel), "-initrd", str(self._initrd)]
        machine += ["-append", append, "-device", "virtio-rng-pci"]
        machine += ["-drive", f"file={disk},if=virtio,format=raw,cache=unsafe"]
        machine += ["-device", "virtio-serial-pci"]
        machine += ["-serial", f"file:{self._console}"]
        machine += ["-chardev", f"socket,id=agent,path={self._folder}/agent,server=on,wait=on"]
        machine += ["-device", "virtserialport,chardev=agent,name=agent"]
        return machine

    def _connected(self) -> socket.socket:
        line = socket.socket(socket.AF_UNIX)
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                line.connect(str(self._folder / "agent"))
                return line
            assert self._process and self._process.poll() is None, "QEMU did not start"
            assert time.monotonic() < deadline, "QEMU does not take the line"
            time.sleep(0.02)

    def _ask(self, question: dict[str, object], patience: float) -> dict[str, object]:
        self._send(question)
        return self._answer(time.monotonic() + patience)

    def _send(self, question: dict[str, object]) -> None:
        assert self._line is not None
        self._line.settimeout(_RUNS)
        self._line.sendall(json.dumps(question).encode() + b"\n")

    def _answer(self, deadline: float) -> dict[str, object]:
        assert self._line is not None
        while b"\n" not in self._heard:
            self._line.settimeout(max(0.01, deadline - time.monotonic()))
            try:
                more = self._line.recv(65536)
            except TimeoutError:
                pytest.fail(f"the machine does not answer\n{self._shown()}")
            assert more, f"the machine ended\n{self._shown()}"
            self._heard += more
        line, _, self._heard = self._heard.partition(b"\n")
        return dict(json.loads(line))

    def _shown(self) -> str:
        return self._console.read_text(errors="replace")[-4000:]


def root(suite: str) -> Path:
    """A root of that suite with its kernel. Made once, kept in .cache."""
    made = REPOSITORY / ".cache/roots" / f"qemu-{suite}-{zlib.crc32(_INCLUDED.encode()):08x}"
    if not made.exists():
        unready = made.with_suffix(".unready")
        shutil.rmtree(unready, ignore_errors=True)
        unready.parent.mkdir(parents=True, exist_ok=True)
        command = ["mmdebstrap", "--mode=root", "--variant=minbase", f"--include={_INCLUDED}"]
        command += ["--quiet", '--aptopt=APT::Install-Recommends "false"']
        command += ['--aptopt=Acquire::Languages "none"', "--dpkgopt=path-exclude=/usr/share/man/*"]
        subprocess.run([*command, suite, str(unready)], check=True, timeout=900)
        unready.rename(made)
    return made


@contextlib.contextmanager
def machine(folder: Path, neighbour: Host, lower: Path) -> Iterator[Machine]:
    """A machine that has not booted yet, beside a host of the lab."""
    parts = [folder / name for name in ("written", "work", "root")]
    for part in parts:
        part.mkdir()
    options = f"lowerdir={lower},upperdir={parts[0]},workdir={parts[1]}"
    subprocess.run(["mount", "-t", "overlay", "vwqemu", "-o", options, parts[2]], check=True)
    made = Machine(folder, neighbour, lower)
    try:
        yield made
    finally:
        made.power_off()
        subprocess.run(["umount", "--lazy", str(parts[2])], check=True)
        for left in ("disk", "written", "work"):
            shutil.rmtree(folder / left, ignore_errors=True)
            with contextlib.suppress(OSError):
                (folder / left).unlink()


def _lay_cable() -> None:
    with IPRoute() as routes:
        routes.link("add", ifname="cable", kind="tuntap", mode="tap")
        (index,) = routes.link_lookup(ifname="cable")
        routes.link("set", index=index, state="up")
        routes.route("replace", dst=f"{ADDRESS}/32", oif=index, scope="link")
