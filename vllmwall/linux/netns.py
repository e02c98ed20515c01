"""Run a function inside a network namespace, in a thread of its own.

setns(2) changes the calling thread only, so the thread is thrown away afterwards and the rest
of the program stays where it was. Needs CAP_SYS_ADMIN over the namespace's user namespace.
"""

from __future__ import annotations

import ctypes
import errno
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000  # linux/sched.h

Result = TypeVar("Result")


def inode_of(path: str) -> int:
    """The inode that names the network namespace behind ``path``. Raises OSError."""
    return Path(path).stat().st_ino


def run_in(path: str, function: Callable[[], Result]) -> Result:
    """Call ``function`` in the network namespace behind ``path`` and return what it returns.

    Raises OSError when the namespace is gone or may not be entered or there is no thread to do
    it, and whatever the function raises. In our own namespace the function is called directly.
    """
    if inode_of(path) == inode_of(OWN):
        return function()
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            enter(path)
            outcome.append(function())
        except BaseException as error:  # handed to the caller, whatever it is
            failure.append(error)

    thread = threading.Thread(target=enter_and_call, name="netns")
    try:
        thread.start()
    except RuntimeError as error:  # how Python says that the kernel gives no more threads
        raise OSError(errno.EAGAIN, f"no thread for a network namespace: {error}", path) from error
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def enter(path: str) -> None:
    """Move the calling thread into the network namespace behind ``path``. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(os, "setns"):  # Python 3.12
            os.setns(descriptor, _CLONE_NEWNET)
        elif ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            error = ctypes.get_errno()
            raise OSError(error, os.strerror(error), path)
    finally:
        os.close(descriptor)
