"""Functions run inside a network namespace, in a thread of their own.

setns(2) and unshare(2) change the calling thread only, so the thread ends afterwards and the rest
of the program stays in its namespace. Needs CAP_SYS_ADMIN over the namespace's user namespace.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

OWN = "/proc/thread-self/ns/net"
_CLONE_NEWNET = 0x40000000  # linux/sched.h
_NS_GET_USERNS, _NS_GET_PARENT, _NS_GET_OWNER_UID = 0xB701, 0xB702, 0xB704  # linux/nsfs.h
_DEEPEST = 33  # levels of user namespaces, user_namespaces(7)

Result = TypeVar("Result")


def inode_of(path: str) -> int:
    """The inode that identifies the network namespace behind ``path``. Raises OSError."""
    return Path(path).stat().st_ino


def creator_of(path: str) -> int:
    """The user who made the network namespace behind ``path``, inside a user namespace of his own.

    0: root made it, or a container runtime for a container. Raises OSError.
    """
    user = 0
    with _held_open() as held:
        space = held(os.open(path, os.O_RDONLY | os.O_CLOEXEC))
        owner = held(fcntl.ioctl(space, _NS_GET_USERNS))
        for _ in range(_DEEPEST):
            try:
                parent = held(fcntl.ioctl(owner, _NS_GET_PARENT))
            except PermissionError:  # the first one, or ours
                break
            found = fcntl.ioctl(owner, _NS_GET_OWNER_UID, bytes(4))
            user, owner = int.from_bytes(found, sys.byteorder), parent
    return user


@contextmanager
def _held_open() -> Iterator[Callable[[int], int]]:
    """A function that keeps a descriptor, which is closed at the end."""
    with ExitStack() as stack:

        def hold(descriptor: int) -> int:
            stack.callback(os.close, descriptor)
            return descriptor

        yield hold


def run_in(path: str, function: Callable[[], Result]) -> Result:
    """Call ``function`` in the network namespace behind ``path`` and return its result.

    Raises OSError when the namespace has ended, may not be entered, or no thread can be started,
    and whatever the function raises. In our own namespace the function is called directly.
    """
    if inode_of(path) == inode_of(OWN):
        return function()
    return _in_a_thread(lambda: enter(path), function)


def run_in_new(function: Callable[[], Result]) -> Result:
    """Call ``function`` in a new network namespace and return its result.

    The namespace ends with the call, unless the function returns a descriptor that holds it
    (`held`). Raises OSError when none can be made, and whatever the function raises.
    """
    return _in_a_thread(_unshare, function)


def held() -> int:
    """A descriptor that keeps the network namespace of the calling thread alive."""
    return os.open(OWN, os.O_RDONLY | os.O_CLOEXEC)


def enter(path: str) -> None:
    """Move the calling thread into the network namespace behind ``path``. Raises OSError."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if hasattr(os, "setns"):  # Python 3.12
            os.setns(descriptor, _CLONE_NEWNET)
        elif ctypes.CDLL(None, use_errno=True).setns(descriptor, _CLONE_NEWNET) != 0:
            raise _failed(path)
    finally:
        os.close(descriptor)


def _unshare() -> None:
    if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) != 0:
        raise _failed("no network namespace can be made")


def _failed(about: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), about)


def _in_a_thread(enter_it: Callable[[], None], function: Callable[[], Result]) -> Result:
    outcome: list[Result] = []
    failure: list[BaseException] = []

    def enter_and_call() -> None:
        try:
            enter_it()
            outcome.append(function())
        except BaseException as error:  # raised again in the calling thread
            failure.append(error)

    thread = threading.Thread(target=enter_and_call, name="netns")
    try:
        thread.start()
    except RuntimeError as error:  # Python's word for EAGAIN of clone(2)
        raise OSError(errno.EAGAIN, f"no thread for a network namespace: {error}") from error
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]
