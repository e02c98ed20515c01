"""Entries and guards that are added by netlink are what nft would have added."""

from __future__ import annotations

import os
from dataclasses import replace
from ipaddress import ip_address, ip_network

import pytest

from tests.support.cgroups import cgroup
from tests.support.lab import Lab
from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.backend import Nftables
from vllmwall.linux.netns import inode_of
from vllmwall.model import Guard, Proto, Wall, WallEntry

NETWORKS = {"peers": (ip_network("192.0.2.2/32"),)}
ENTRIES = frozenset(
    {
        WallEntry(4, Proto.TCP, 29500, ("peers",), None, "unknown new"),
        WallEntry(6, Proto.TCP, 29500, ("peers",), None),
        WallEntry(4, Proto.UDP, 65535, ("node",), None, "a" * 64),
        WallEntry(4, Proto.TCP, 1, ("peers",), ip_address("192.0.2.1"), "tcpstore job"),
        WallEntry(6, Proto.UDP, 256, ("peers",), ip_address("2001:db8::1"), "zmq"),
        WallEntry(4, Proto.TCP, 8000, ("public",), None, "api vllm"),
    }
)


NOBODYS = WallEntry(4, Proto.TCP, 7, ("node",), None)  # so that nobody is trusted everywhere


def test_what_is_added_at_once_reads_as_any_other(lab: Lab, backend: Nftables) -> None:
    """Each kind of entry, and a guard; a second time changes nothing."""
    path = lab.node.path
    bare = Wall(inode_of(path), frozenset({NOBODYS}), NETWORKS)
    backend.apply(path, bare, None)
    with cgroup(f"/vwtest-{os.getpid()}.slice/x.service") as folder:
        guards = frozenset({Guard(2, folder.stat().st_ino)})
        for _ in range(2):
            backend.close(path, ENTRIES, guards)
            assert replace(bare, entries={NOBODYS, *ENTRIES}, guards=guards) == backend.read_back(
                path
            )


def test_what_cannot_be_added_leaves_all_as_it_was(lab: Lab, backend: Nftables) -> None:
    """One transaction: the first entry does not come without the second."""
    path = lab.node.path
    bare = Wall(inode_of(path), frozenset(), NETWORKS)
    backend.apply(path, bare, None)
    stranger = WallEntry(4, Proto.TCP, 80, ("nobody",), None)
    with pytest.raises(EnforceError):
        backend.close(path, [*ENTRIES, stranger], ())
    assert bare == backend.read_back(path)
