"""Functions that run inside a network namespace: `vllmwall.linux.netns`."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading

import pytest

from vllmwall.linux.netns import OWN, held, inode_of, run_in, run_in_new

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="only root can make a network namespace")


def here() -> int:
    return inode_of(OWN)


def test_a_new_namespace_is_another_one_and_has_nothing_but_lo() -> None:
    """The calling thread stays where it was."""
    before = here()
    inside, links = run_in_new(lambda: (here(), socket.if_nameindex()))
    assert (before, [(1, "lo")]) == (here(), links)
    assert inside != before


def test_a_held_namespace_can_be_entered_again() -> None:
    """The descriptor keeps it after the thread that made it has ended."""
    inside, descriptor = run_in_new(lambda: (here(), held()))
    try:
        assert inside == run_in(f"/proc/self/fd/{descriptor}", here)
    finally:
        os.close(descriptor)


def test_what_the_function_raises_comes_through() -> None:
    """From the other thread into the calling one."""

    def fail() -> None:
        raise LookupError(threading.current_thread().name)

    with pytest.raises(LookupError, match="netns"):
        run_in_new(fail)


def test_a_path_that_is_no_namespace_is_an_error() -> None:
    """The message has the path."""
    with pytest.raises(OSError, match=r"Invalid argument.*/proc/self/mounts"):
        run_in("/proc/self/mounts", here)


def test_without_the_privilege_a_new_namespace_is_refused() -> None:
    """unshare(2) gives EPERM, and the error names what could not be made."""
    drop = "import os; os.setresuid(65534, 65534, 65534)"
    program = f"from vllmwall.linux.netns import *; {drop}; run_in_new(held)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert "PermissionError: [Errno 1]" in done.stderr
    assert "no network namespace can be made" in done.stderr
