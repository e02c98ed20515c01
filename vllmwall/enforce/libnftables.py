"""libnftables in this process: text in, text out, in any network namespace.

One call of `Libnftables.run` is one kernel transaction. Three properties of the library shape
this module:

- A handle holds a netlink socket of the namespace it was made in, and by that keeps the
  namespace alive. So only the handle for our own is kept; one for another is made in a thread
  that has entered it, and is closed again at once.
- It aborts the process when its descriptor is 1024 or more (select). A low one is kept in
  reserve, which the next handle gets.
- It ends the process when it cannot open a netlink socket. So we try that first.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import socket
import threading
from collections.abc import Iterator
from typing import Protocol

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.seclusion import seclude, secluded
from vllmwall.netns import OWN, inode_of, run_in

_NETLINK_NETFILTER = 12  # linux/netlink.h
_SELECT_LIMIT = 1024  # FD_SETSIZE, sys/select.h
_MISSING = "No such file or directory"


class NotThereError(EnforceError):
    """What the script names does not exist in the kernel."""


class Handle(Protocol):
    """The part of `nftables.Nftables` that we use."""

    def cmd(self, cmdline: str) -> tuple[int, str, str]:
        """Run a script: its return code, what it printed, what it complained about."""

    def set_stateless_output(self, val: bool) -> bool:
        """Leave counters out of listings."""


class Libnftables:
    """Runs nft scripts. Several threads may use it; they wait for each other."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._own: Handle | None = None
        self._reserved = [_reserve(), _reserve()]  # for our own handle, and for another

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

    def _command(self, path: str, script: str, output: str) -> str:
        with self._lock:
            code, printed, complaint = self._within(path, script, output)
            if code != 0 and _MISSING not in complaint:
                # Once more as a file: nft 1.0.6 names the line only then.
                with _as_file(script) as include:
                    code, printed, complaint = self._within(path, include, output)
        if code == 0:
            return printed
        refused = NotThereError if _MISSING in complaint else EnforceError
        raise refused(_plain(complaint) or f"libnftables returned {code}, no more", script)

    def _within(self, path: str, script: str, output: str) -> tuple[int, str, str]:
        if inode_of(path) == inode_of(OWN):
            own = self._own = self._own or self._open()
            if output == "stateless":
                return secluded(lambda: _cmd(own, script, output))
            return _cmd(own, script, output)
        try:
            # Nothing raises between open and return: a traceback would keep the handle, and
            # with it the namespace, alive.
            return run_in(path, lambda: self._cmd_once(script, output))
        finally:
            while len(self._reserved) < 2 - bool(self._own):
                self._reserved.append(_reserve())

    def _cmd_once(self, script: str, output: str) -> tuple[int, str, str]:
        if output == "stateless":
            seclude()
        return _cmd(self._open(), script, output)

    def _open(self) -> Handle:
        """A handle on the calling thread's network namespace, on a reserved descriptor."""
        import nftables

        os.close(self._reserved.pop())
        _try_netlink()
        handle: Handle = nftables.Nftables()
        return handle


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
    handle.set_stateless_output(output == "stateless")
    return handle.cmd(script)


def _reserve() -> int:
    return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)


def _try_netlink() -> None:
    """Raise OSError where the library would end or abort the process."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as probe:
        if probe.fileno() >= _SELECT_LIMIT:
            raise OSError(errno.EMFILE, "no descriptor below 1024 is left for libnftables")
