"""The way into a network namespace, when the processes of its events end at once."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.support.lab import Lab
from vllmwall.linux.netns import inode_of
from vllmwall.model import Process
from vllmwall.observe.namespaces import Namespaces
from vllmwall.observe.processes import ProcessTable


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """What a daemon knows at its start: nobody."""
    made = Namespaces()
    yield made
    made.close()


def named(process: subprocess.Popen[str]) -> Process:
    """A process as an event's reader finds it."""
    found = ProcessTable().look_at(process.pid)
    assert found is not None
    return found


def test_our_own_namespace_is_entered_through_ourselves(namespaces: Namespaces) -> None:
    """A job that ends at once does not take the way to our own wall with it."""
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, text=True) as job:
        namespaces.adopt(named(job))
        job.kill()
    assert namespaces.own == inode_of(namespaces.path(namespaces.own))
    namespaces.listeners(namespaces.own)  # there may be none; reading them is what must work
    assert not namespaces.errors


def test_who_is_known_in_a_namespace_is_kept_while_he_lives(
    lab: Lab, namespaces: Namespaces
) -> None:
    """Then the next one that is named takes his place."""
    first, second, third = (lab.node.popen(["sleep", "600"]) for _ in range(3))
    inode = inode_of(lab.node.path)
    namespaces.adopt(waited_for(first, inode))
    namespaces.adopt(waited_for(second, inode))
    second.kill()
    second.wait()
    assert inode == inode_of(namespaces.path(inode))
    namespaces.adopt(waited_for(third, inode))
    first.kill()
    first.wait()
    namespaces.adopt(waited_for(third, inode))
    assert inode == inode_of(namespaces.path(inode))


def waited_for(process: subprocess.Popen[str], inode: int) -> Process:
    """As soon as it has entered the namespace."""
    while (found := named(process)).namespace != inode:
        assert process.poll() is None
    return found
