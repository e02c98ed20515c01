"""A temporary host with a real systemd: this machine's own root, booted by systemd-nspawn.

What the box writes lies in an overlay, so it lives over a reboot of the box and is gone with the
test. It has cgroups and a network of its own; one cable leads to a host of the lab. With this
machine's root it boots no further than basic.target, so that no service of it runs twice; another
root (`tests.system.debian`) boots whole.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from pyroute2 import IPRoute

from tests.support import cgroups
from tests.support.lab import Host
from tests.support.waiting import eventually

ADDRESS = "198.51.100.1"
"""The box's, once something in it says so: see `Box.write_network`."""

REPOSITORY = Path(__file__).parents[2]
_PATIENCE = 60.0
_POWER_OFF = signal.SIGRTMIN + 4  # systemd(1), SIGNALS
# The box shares /sys with the machine: its devices and settings are none of the box's business.
_MASKED = ("systemd-udevd", "systemd-udev-trigger", "systemd-sysctl", "systemd-modules-load")
_NAMESPACES = ("-m", "-u", "-i", "-n", "-p", "-C", "-r", "-w")
_SECOND_HIERARCHY = Path("/sys/fs/cgroup/systemd")
_numbers = itertools.count()


class Box:
    """One such host. `box` makes it and removes it."""

    def __init__(self, folder: Path, neighbour: Host, target: str = "basic.target") -> None:
        self.root = folder / "root"
        self._target = target
        self._neighbour = neighbour
        number = next(_numbers)
        self._cable = f"vwbox{os.getpid()}-{number % 100}"  # 15 characters at most: IFNAMSIZ
        self._console = folder / "console"
        self._name = f"vwbox-{os.getpid()}-{number}"
        self._process: subprocess.Popen[bytes] | None = None

    def write(self, path: str, text: str) -> None:
        """Write a file, whether the box runs or not."""
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def boot(self) -> None:
        """Until systemd says that it is up."""
        self._process = subprocess.Popen(self._command(), **self._streams())  # type: ignore[call-overload]
        self._wait_for(self._plugged_in, "the cable is there")
        self._wait_for(self._is_up, "systemd is up")

    def power_off(self) -> None:
        """In good order, as for a reboot."""
        if self._process is not None and self._process.poll() is None:
            with contextlib.suppress(ProcessLookupError, IndexError, FileNotFoundError):
                os.kill(self._leader(), _POWER_OFF)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(_PATIENCE)
            self._process.kill()
            self._process.wait()

    def run(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a command inside to its end."""
        command = self.inside(*argv)
        return subprocess.run(command, capture_output=True, text=True, check=check, timeout=90)

    def start(self, *argv: str) -> subprocess.Popen[str]:
        """Start a command inside, with pipes to it. The caller ends it."""
        pipe = subprocess.PIPE
        return subprocess.Popen(self.inside(*argv), stdin=pipe, stdout=pipe, text=True)

    def inside(self, *argv: str) -> list[str]:
        """The command line that runs ``argv`` inside."""
        path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        enter = ["nsenter", "-t", str(self._leader()), *_NAMESPACES]
        return [
            *enter,
            "env",
            "-i",
            path,
            "HOME=/",
            "LANG=C.UTF-8",
            f"PYTHONPATH={REPOSITORY}",
            f"PYTHONPYCACHEPREFIX={os.environ.get('PYTHONPYCACHEPREFIX', '')}",
            *argv,
        ]

    def journal(self) -> str:
        """Of this boot."""
        return self.run("journalctl", "-b", "--no-pager", "-o", "cat").stdout

    def _command(self) -> list[str]:
        nspawn = ["systemd-nspawn", "--quiet", "--register=no", "--keep-unit", "--capability=all"]
        nspawn += [f"--directory={self.root}", f"--machine={self._name}", "--console=pipe"]
        nspawn += ["--private-network", f"--network-veth-extra={self._cable}:host0"]
        nspawn += [f"--bind-ro={path}" for path in _binds()]
        nspawn += ["--system-call-filter=@keyring bpf"]  # a container engine needs them, too
        nspawn += ["--resolv-conf=off", "--timezone=off", "--link-journal=no", "--boot"]
        inside = cgroups.inside(self._cgroup(), [*nspawn, f"systemd.unit={self._target}"])
        return ["nsenter", f"--net={self._neighbour.path}", *inside]

    def _streams(self) -> dict[str, object]:
        console = self._console.open("ab")
        env = {**os.environ, "SYSTEMD_NSPAWN_UNIFIED_HIERARCHY": "1", "SYSTEMD_NSPAWN_LOCK": "0"}
        env["SYSTEMD_NSPAWN_API_VFS_WRITABLE"] = "1"
        return {"stdin": subprocess.DEVNULL, "stdout": console, "stderr": console, "env": env}

    def _cgroup(self) -> Path:
        folder = cgroups.root() / self._name
        folder.mkdir(exist_ok=True)
        return folder

    def forget(self) -> None:
        """Leave no cgroup behind; on hybrid machines nspawn makes a second one."""
        for hierarchy in (cgroups.root(), _SECOND_HIERARCHY):
            cgroups.remove(hierarchy / self._name)

    def _leader(self) -> int:
        assert self._process is not None
        pid = self._process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def _plugged_in(self) -> bool:
        def plug_in() -> bool:
            with IPRoute() as routes:
                found = routes.link_lookup(ifname=self._cable)
                if found:
                    routes.link("set", index=found[0], state="up")
                    routes.route("replace", dst=f"{ADDRESS}/32", oif=found[0], scope="link")
                return bool(found)

        return self._neighbour.call(plug_in)

    def _is_up(self) -> bool:
        with contextlib.suppress(IndexError):
            said = self.run("systemctl", "is-system-running", check=False).stdout.strip()
            return said in ("running", "degraded")
        return False

    def _wait_for(self, condition: Callable[[], bool], what: str) -> None:
        def holds() -> bool:
            assert self._process is not None
            assert self._process.poll() is None, f"the box ended before {what}:\n{self._shown()}"
            return condition()

        eventually(holds, what, self._shown, _PATIENCE)

    def _shown(self) -> str:
        return self._console.read_text(errors="replace")


def _binds() -> set[Path]:
    """What tests run from inside, at the same paths."""
    torch = REPOSITORY / ".venv-torch"
    elsewhere = {torch.resolve()} if torch.is_symlink() and torch.exists() else set()
    return {REPOSITORY, Path(sys.base_prefix), *elsewhere}


@contextlib.contextmanager
def box(folder: Path, neighbour: Host, root: Path | None = None) -> Iterator[Box]:
    """A box that has not booted yet, beside a host of the lab; ``root`` None: this machine's."""
    parts = [folder / name for name in ("written", "work", "root")]
    for part in parts:
        part.mkdir()
    options = f"lowerdir={root or '/'},upperdir={parts[0]},workdir={parts[1]}"
    subprocess.run(["mount", "-t", "overlay", "vwbox", "-o", options, parts[2]], check=True)
    made = Box(folder, neighbour, "multi-user.target" if root else "basic.target")
    try:
        for unit in _MASKED:
            link = made.root / "etc/systemd/system" / f"{unit}.service"
            link.parent.mkdir(parents=True, exist_ok=True)
            link.unlink(missing_ok=True)
            link.symlink_to("/dev/null")
        yield made
    finally:
        made.power_off()
        made.forget()
        subprocess.run(["umount", "--lazy", str(parts[2])], check=True)
