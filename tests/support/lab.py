"""A small network in namespaces of its own, for kernel tests, real tests and the demo.

`Lab` joins hosts by a bridge that has a namespace to itself, so the machine underneath keeps
its own network as it was. Every host has IPv4 and IPv6 documentation addresses, reaches every
other one on the link, has a hostname of its own and resolves the hostnames of all. Whatever
happens, leaving the lab ends every process in it and removes namespaces and files.

Needs root. Imports of ours: `vllmwall.linux.netns` only, so that a bug in the product cannot hide
in the lab.

    with Lab() as lab:
        lab.node.listen("0.0.0.0", 29500)
        assert lab.stranger.connect("192.0.2.1", 29500) == "open"
"""

from __future__ import annotations

import contextlib
import ctypes
import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pyroute2 import IPRoute, netns

from tests.support.echo import Echo
from tests.support.ending import end_group, end_processes_in
from vllmwall.linux.netns import run_in

NAMESPACES = Path("/run/netns")
PREFIX = "vwlab"
NODE = ("192.0.2.1", "2001:db8::1")
PEER = ("192.0.2.2", "2001:db8::2")
STRANGER = ("203.0.113.9", "2001:db8:bad::9")

_NODAD = 0x02  # IFA_F_NODAD, linux/if_addr.h: usable at once, no duplicate address detection
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_LINK_SCOPE = 253  # RT_SCOPE_LINK, linux/rtnetlink.h
# What a process is started through: its own hostname and /etc/hosts, then the command itself,
# still under the same pid. `ip netns exec` would also hide /sys/fs/cgroup and tracefs.
_ENTRY = 'mount --bind "$1" /etc/hosts && hostname "$2" && shift 2 && exec "$@"'

_numbers = itertools.count()
Result = TypeVar("Result")


class Host:
    """One machine of the lab. Made by `Lab.host`, gone with the lab."""

    def __init__(self, name: str, path: str, hosts_file: Path, stack: contextlib.ExitStack) -> None:
        self.name = name
        self.path = path
        self.addresses: list[str] = []
        self.hosts_file = hosts_file
        self._stack = stack

    @property
    def ipv4(self) -> str:
        """The first IPv4 address."""
        return next(address for address in self.addresses if ":" not in address)

    @property
    def ipv6(self) -> str:
        """The first IPv6 address."""
        return next(address for address in self.addresses if ":" in address)

    def call(self, function: Callable[[], Result]) -> Result:
        """Run a function in a thread inside this host's network namespace."""
        return run_in(self.path, function)

    def add_address(self, *addresses: str) -> None:
        """Give the host more addresses, usable at once."""

        def add() -> None:
            with IPRoute() as routes:
                index = routes.link_lookup(ifname="eth0")[0]
                for address in addresses:
                    _add_address(routes, index, address)

        self.call(add)
        self.addresses += addresses

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` on this host."""
        entry = ["nsenter", f"--net={self.path}", "unshare", "--mount", "--uts"]
        entry += ["--propagation", "slave", "sh", "-c", _ENTRY, "sh"]
        return [*entry, str(self.hosts_file), self.name, *argv]

    def run(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
        timeout: float = 60,
    ) -> subprocess.CompletedProcess[str]:
        """Run a command to its end and return it with its output. Raises when it fails."""
        return subprocess.run(
            self.command(argv),
            env=env,
            input=stdin,
            timeout=timeout,
            capture_output=True,
            text=True,
            check=True,
        )

    def popen(
        self,
        argv: Sequence[str],
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        output: Path | None = None,
    ) -> subprocess.Popen[str]:
        """Start a command as a process group of its own; the lab ends it.

        Its output and errors go to the file ``output`` where one is given, else to a pipe that
        `Popen.stdout` reads.
        """
        with contextlib.ExitStack() as files:
            target = files.enter_context(output.open("a")) if output else subprocess.PIPE
            process = subprocess.Popen(
                self.command(argv),
                env=env,
                cwd=cwd,
                stdout=target,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        self._stack.callback(end_group, process)
        return process

    def open_socket(self, family: int, kind: int) -> socket.socket:
        """A socket that belongs to this host, usable from any thread. The caller closes it."""
        return self.call(lambda: socket.socket(family, kind))

    def listen(self, address: str, port: int, *, v6only: bool = False) -> Echo:
        """Echo what comes over TCP until the lab closes or the server is closed."""
        return self._serve(socket.SOCK_STREAM, address, port, v6only)

    def listen_udp(self, address: str, port: int, *, v6only: bool = False) -> Echo:
        """Echo what comes over UDP until the lab closes or the server is closed."""
        return self._serve(socket.SOCK_DGRAM, address, port, v6only)

    def _serve(self, kind: int, address: str, port: int, v6only: bool) -> Echo:
        made = self.open_socket(_family(address), kind)
        if made.family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(v6only))
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((address, port))
        server = Echo(made)
        self._stack.callback(server.close)
        return server

    def dial(
        self, address: str, port: int, *, timeout: float = 1, source: str | None = None
    ) -> socket.socket:
        """A connected TCP socket from this host. Raises OSError. The caller closes it."""
        made = self.open_socket(_family(address), socket.SOCK_STREAM)
        try:
            made.settimeout(timeout)
            made.bind((source or _any(address), 0))
            made.connect(_numeric(address, port))
        except OSError:
            made.close()
            raise
        return made

    def connect(
        self, address: str, port: int, timeout: float = 0.5, source: str | None = None
    ) -> str:
        """Try TCP: ``open``, ``refused`` or ``timeout``."""
        try:
            self.dial(address, port, timeout=timeout, source=source).close()
        except OSError as error:
            return _outcome(error)
        return "open"

    def udp(self, address: str, port: int, timeout: float = 0.5, source: str | None = None) -> str:
        """Try a round trip against a UDP echo: ``open``, ``refused`` or ``timeout``."""
        with self.open_socket(_family(address), socket.SOCK_DGRAM) as made:
            try:
                made.settimeout(timeout)
                made.bind((source or _any(address), 0))
                made.connect((address, port))
                made.send(b"hello")
                return "open" if made.recv(64) == b"hello" else "garbled"
            except OSError as error:
                return _outcome(error)


class Lab:
    """A context manager that builds the network and takes it away again.

    ``node`` is the machine that vllmwall guards, ``peer`` one that it trusts, ``stranger`` one
    that it does not; `host` adds more.
    """

    node: Host
    peer: Host
    stranger: Host

    def __enter__(self) -> Lab:
        _sweep()
        self._name = f"{PREFIX}{os.getpid()}-{next(_numbers)}"
        self._ports = itertools.count()
        self._namespaces: list[str] = []
        self._stack = contextlib.ExitStack()  # the hosts have it too
        self._stack.callback(lambda: _remove_namespaces(self._namespaces))
        try:
            self._hosts_file = self._new_hosts_file()
            self._bridge = self._namespace("wire")
            run_in(self._bridge, _make_bridge)
            self.node = self.host("node", *NODE)
            self.peer = self.host("peer", *PEER)
            self.stranger = self.host("stranger", *STRANGER)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stack.close()

    def host(self, name: str, *addresses: str) -> Host:
        """Add a host with these addresses. ``name`` becomes its hostname."""
        path = self._namespace(name)
        port = f"port{next(self._ports)}"
        run_in(self._bridge, lambda: _plug_in(port, path))
        made = Host(name, path, self._hosts_file, self._stack)
        run_in(path, lambda: _set_up(addresses))
        made.addresses += addresses
        self._publish(name, addresses)
        return made

    def _namespace(self, name: str) -> str:
        full_name = f"{self._name}-{name}"
        self._namespaces.append(full_name)
        _make_namespace(full_name)
        return str(NAMESPACES / full_name)

    def _new_hosts_file(self) -> Path:
        folder = tempfile.mkdtemp(prefix=self._name)
        self._stack.callback(shutil.rmtree, folder, ignore_errors=True)
        made = Path(folder) / "hosts"
        made.write_text("127.0.0.1 localhost\n::1 localhost\n")
        return made

    def _publish(self, name: str, addresses: Sequence[str]) -> None:
        """Let every host resolve ``name`` (IPv4) and ``name6`` (IPv6)."""
        with self._hosts_file.open("a") as hosts:  # appended: running processes have it mounted
            for address in addresses:
                hosts.write(f"{address} {name}6\n" if ":" in address else f"{address} {name}\n")


def _family(address: str) -> int:
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def _any(address: str) -> str:
    return "::" if ":" in address else "0.0.0.0"


def _numeric(
    address: str, port: int
) -> tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]:
    """The socket address, with the interface that ``fe80::1%eth0`` names where we are."""
    return socket.getaddrinfo(address, port, flags=socket.AI_NUMERICHOST)[0][4]


def _outcome(error: OSError) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "refused"
    if isinstance(error, TimeoutError):
        return "timeout"
    raise error


def _make_bridge() -> None:
    with IPRoute() as routes:
        routes.link("add", ifname="br0", kind="bridge", br_mcast_snooping=0)
        routes.link("set", index=routes.link_lookup(ifname="br0")[0], state="up")


def _plug_in(port: str, path: str) -> None:
    with IPRoute() as routes:
        far_end = {"ifname": "eth0", "net_ns_fd": path}
        routes.link("add", ifname=port, kind="veth", peer=far_end)
        bridge = routes.link_lookup(ifname="br0")[0]
        routes.link("set", index=routes.link_lookup(ifname=port)[0], master=bridge, state="up")


def _set_up(addresses: Iterable[str]) -> None:
    """Links, addresses and default routes of a new host."""
    for scope in ("all", "default", "eth0"):
        Path(f"/proc/sys/net/ipv6/conf/{scope}/accept_dad").write_text("0")
    with IPRoute() as routes:
        routes.link("set", index=1, state="up")  # lo has the number 1 everywhere
        index = routes.link_lookup(ifname="eth0")[0]
        routes.link("set", index=index, state="up")
        for address in addresses:
            _add_address(routes, index, address)
        # Everything is on the link: hosts need no common subnet to talk to each other.
        routes.route("add", dst="0.0.0.0/0", oif=index, scope=_LINK_SCOPE)
        routes.route("add", dst="::/0", oif=index)


def _add_address(routes: IPRoute, index: int, address: str) -> None:
    length = 128 if ":" in address else 32
    flags = {"flags": _NODAD} if ":" in address else {}
    routes.addr("add", index=index, address=address, prefixlen=length, **flags)


def _make_namespace(name: str) -> None:
    """Make it in a thread that ends with it: a process of its own would take 30 ms."""

    def make() -> None:
        if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"no network namespace {name}")
        netns.attach(name, "thread-self")

    with ThreadPoolExecutor(1) as thread:
        thread.submit(make).result()


def _remove_namespaces(names: Iterable[str]) -> None:
    """End what runs in them, all at once, then remove them."""
    present = [name for name in names if (NAMESPACES / name).exists()]
    end_processes_in(NAMESPACES / name for name in present)
    for name in present:
        with contextlib.suppress(FileNotFoundError):  # another lab swept it up meanwhile
            netns.remove(name)


def _sweep() -> None:
    """Remove what a lab whose process was killed had to leave behind."""
    orphaned = [one for one in NAMESPACES.glob(f"{PREFIX}[0-9]*-*") if _is_orphaned(one)]
    if orphaned:
        _remove_namespaces(one.name for one in orphaned)
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}[0-9]*-*"):
        if _is_orphaned(path):
            shutil.rmtree(path, ignore_errors=True)


def _is_orphaned(path: Path) -> bool:
    pid = path.name.removeprefix(PREFIX).partition("-")[0]
    return not Path("/proc", pid).exists()
