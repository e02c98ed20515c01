"""libnftables in this process: text in, text out, in any network namespace.

One call of `Libnftables.run` is one kernel transaction. What shapes this module:

- A handle has one netlink socket, of the namespace in which it was made. A table with an owner
  is changed through the socket that owns it and no other (`owned`), so handles are kept, one
  for each namespace. Any thread may use them: the socket stays where it was made.
- It keeps its namespace alive. So `release` closes the handles of those without a process.
- It aborts the process when its descriptor is 1024 or more (select). Low ones are kept in
  reserve, which the next handles get, and the handle that rested longest is closed for a new one.
- It ends the process when it cannot open a netlink socket. So we try that first.
- Its socket is open to children (libmnl sets no O_CLOEXEC): a child would own our tables.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TypeVar

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.hidden_cgroups import secluded
from vllmwall.enforce.nftables.notifications import Watch
from vllmwall.linux.netlink import NETFILTER
from vllmwall.linux.netns import OWN, inode_of, run_in

_SELECT_LIMIT = 1024  # FD_SETSIZE, sys/select.h
_MOST_HANDLES = 200
_RESERVE = 2
_MISSING = "No such file or directory"

Result = TypeVar("Result")


class NotThereError(EnforceError):
    """What the script names does not exist in the kernel."""


class Handle(Protocol):
    """The part of `nftables.Nftables` that we use."""

    def cmd(self, cmdline: str) -> tuple[int, str, str]:
        """Run a script: its return code, what it printed, what it complained about."""

    def set_stateless_output(self, val: bool) -> bool:
        """Leave counters out of listings."""


@dataclass
class _Kept:
    """The handle of one namespace, its socket's descriptor, and who else changes things there."""

    namespace: int
    handle: Handle
    descriptor: int
    watch: Watch | None


class Libnftables:
    """Runs nft scripts. Several threads may use it; they wait for each other.

    At most ``most`` namespaces have a handle at a time.
    """

    def __init__(self, most: int = _MOST_HANDLES) -> None:
        self._lock = threading.Lock()
        self._home = inode_of(OWN)
        self._most = most
        self._kept: OrderedDict[int, _Kept] = OrderedDict()  # the one that rested longest first
        self._reserved = [_reserve() for _ in range(_RESERVE)]
        weakref.finalize(self, _close_all, self._reserved)

    def run(self, path: str, script: str) -> str:
        """Run a script in the network namespace behind ``path``, as one transaction.

        Returns what it printed, with counters. Raises OSError when the namespace is gone,
        NotThereError when something the script names is not in the kernel, EnforceError when it is
        refused for another reason.
        """
        return self._command(path, script, "with counters")

    def show(self, path: str, script: str) -> str:
        """As `run`; listings come without counters, so that they compare."""
        return self._command(path, script, "stateless")

    def through(self, path: str, exchange: Callable[[socket.socket], Result]) -> Result:
        """Call ``exchange`` with the netlink socket that our changes of a namespace come from."""
        with self._lock, _borrowed(self._handle(path).descriptor) as ours:
            return exchange(ours)

    def release(self, living: Collection[int]) -> None:
        """Close what keeps other namespaces alive than these (inodes) and our own."""
        with self._lock:
            for inode in self._kept.keys() - {*living, self._home}:
                self._close(inode)

    def watches(self) -> Mapping[int, Watch]:
        """By namespace with a handle, the notifications of changes by other programs."""
        with self._lock:
            return {each.namespace: each.watch for each in self._kept.values() if each.watch}

    def _command(self, path: str, script: str, output: str) -> str:
        with self._lock:
            handle = self._handle(path).handle
            with self._some_to_spare():
                code, printed, complaint = _cmd(handle, script, output)
                if code != 0 and _MISSING not in complaint:
                    # Once more as a file: nft 1.0.6 names the line only then.
                    with _as_file(script) as include:
                        code, printed, complaint = _cmd(handle, include, output)
        if code == 0:
            return printed
        refused = NotThereError if _MISSING in complaint else EnforceError
        raise refused(_plain(complaint) or f"libnftables returned {code} without a message", script)

    @contextlib.contextmanager
    def _some_to_spare(self) -> Iterator[None]:
        """Descriptors for the script and for the socket that the library opens for itself
        (src/iface.c): it ends the process where it gets none."""
        while self._reserved:
            os.close(self._reserved.pop())
        try:
            yield
        finally:
            self._fill_reserve()

    def _handle(self, path: str) -> _Kept:
        inode = inode_of(path)
        if inode in self._kept:
            self._kept.move_to_end(inode)
            return self._kept[inode]
        self._make_room()
        try:
            made = run_in(path, self._open)
        finally:
            self._fill_reserve()
        if made.namespace != inode:  # the path leads elsewhere by now: a pid was reused
            raise OSError(errno.ENOENT, f"network namespace {inode} is gone", path)
        self._kept[inode] = made
        return made

    def _make_room(self) -> None:
        """For one more handle, and a low descriptor for it."""
        others = [inode for inode in self._kept if inode != self._home]
        while others and (len(self._kept) >= self._most or not self._reserved):
            self._close(others.pop(0))
            self._fill_reserve()

    def _close(self, inode: int) -> None:
        closed = self._kept.pop(inode)
        if closed.watch is not None:
            closed.watch.close()

    def _fill_reserve(self) -> None:
        with contextlib.suppress(OSError):  # `_make_room` finds another way
            while len(self._reserved) < _RESERVE:
                descriptor = _reserve()
                if descriptor >= _SELECT_LIMIT:
                    os.close(descriptor)
                    return
                self._reserved.append(descriptor)

    def _open(self) -> _Kept:
        """A handle on the calling thread's network namespace, on a reserved descriptor."""
        import nftables

        if self._reserved:
            os.close(self._reserved.pop())
        _try_netlink()
        before = _netlink_sockets()
        handle: Handle = nftables.Nftables()
        (descriptor,) = _netlink_sockets() - before
        os.set_inheritable(descriptor, False)
        with _borrowed(descriptor) as ours:
            ours.bind((0, 0))
            portid = ours.getsockname()[0]
        return _Kept(inode_of(OWN), handle, descriptor, _watch(portid))


def _watch(portid: int) -> Watch | None:
    try:
        return Watch(portid)
    except OSError:  # `Nftables.ownership` reports that the table is not watched
        return None


def _netlink_sockets() -> set[int]:
    """The descriptors of this process that are netfilter's netlink sockets."""
    return {number for number in map(int, _names("/proc/self/fd")) if _is_netfilter(number)}


def _names(folder: str) -> list[str]:
    return [path.name for path in Path(folder).iterdir()]


def _is_netfilter(descriptor: int) -> bool:
    try:
        with _borrowed(descriptor) as found:
            domain = found.getsockopt(socket.SOL_SOCKET, socket.SO_DOMAIN)
            protocol = found.getsockopt(socket.SOL_SOCKET, socket.SO_PROTOCOL)
    except OSError:  # no socket, or closed meanwhile
        return False
    return (domain, protocol) == (socket.AF_NETLINK, NETFILTER)


@contextlib.contextmanager
def _borrowed(descriptor: int) -> Iterator[socket.socket]:
    """A descriptor of somebody else's as a socket, left open afterwards."""
    borrowed = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER, fileno=descriptor)
    try:
        yield borrowed
    finally:
        borrowed.detach()


@contextlib.contextmanager
def _as_file(script: str) -> Iterator[str]:
    """A command that reads the script from a file in memory."""
    with os.fdopen(os.memfd_create("nft"), "w") as file:
        file.write(script)
        file.flush()
        yield f'include "/proc/self/fd/{file.fileno()}"'


def _plain(complaint: str) -> str:
    """What nft complains about, with ``line 3:`` for the place in the file."""
    words = re.sub(r"^In file included from .*\n", "", complaint, flags=re.MULTILINE)
    return re.sub(
        r"^/proc/self/fd/\d+:(\d+):\S+ Error", r"line \1: Error", words, flags=re.MULTILINE
    )


def _cmd(handle: Handle, script: str, output: str) -> tuple[int, str, str]:
    stateless = output == "stateless"
    handle.set_stateless_output(stateless)
    return secluded(lambda: handle.cmd(script)) if stateless else handle.cmd(script)


def _reserve() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _close_all(descriptors: list[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def _try_netlink() -> None:
    """Raise OSError where the library would end or abort the process."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER) as probe:
        if probe.fileno() >= _SELECT_LIMIT:
            raise OSError(errno.EMFILE, "no descriptor below 1024 is left for libnftables")
