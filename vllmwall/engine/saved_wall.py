"""The wall of the host's own namespace on disk, for the next boot: see `vllmwall.enforce.boot`.

Promises: the file holds a whole script or the one before it, is root's alone, and is written only
when its text changes. Whatever is wrong with it costs nothing now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from vllmwall.cidr import merged
from vllmwall.decide.adopted import without_adopted
from vllmwall.enforce.backend import AlteredWall
from vllmwall.enforce.boot import Door, boot_script, lasting, remembered_in
from vllmwall.engine.reconciler import Reconciler
from vllmwall.linux.files import save_text
from vllmwall.linux.netns import run_in
from vllmwall.linux.places import SAVED_WALL
from vllmwall.model import PEERS, Listener, Network, Proto, Wall

_RANGE = Path("/proc/sys/net/ipv4/ip_local_port_range")  # of the namespace of who reads it
_REMOTE_SHELLS = frozenset({"sshd", "dropbear", "systemd"})  # systemd: ssh.socket


class SavedWall:
    """The script in ``file``, as far as it can be read."""

    def __init__(self, file: Path = SAVED_WALL) -> None:
        self._file = file
        self._text = _read(file)
        self._entries = remembered_in(self._text)

    def keep(self, reconciler: Reconciler, *, fenced: bool) -> bool:
        """Write the active wall; False: it is the same as in the file.

        ``fenced``: with a fence around the ephemeral range. A wall that is down, altered or not to
        be read leaves the file as it is. Raises OSError when it cannot be written: the old one
        stays, and the next call tries again.
        """
        home = min(reconciler.only, default=reconciler.observer.namespaces.own)
        active = reconciler.walls.actual(home)
        if active is None or isinstance(active, AlteredWall):
            return False
        ephemeral = run_in(reconciler.observer.namespaces.path(home), ephemeral_ports)
        others = [one for one in reconciler.recognition.unclaimed if one.namespace == home]
        labelled = [one for each in reconciler.recognition.workloads for one in each.listeners]
        wall = lasting(
            without_adopted(_without_passing_peers(active, reconciler), labelled),
            self._entries,
            {(one.proto, one.port) for one in others},
            ephemeral,
        )
        spared = frozenset(port for _, port in _remote_shells(others, reconciler))
        wall = replace(wall, failsafe=wall.failsafe | spared)
        text = boot_script(wall, fence=ephemeral if fenced else None)
        if text == self._text:
            return False
        save_text(self._file, text, mode=0o600)
        self._text, self._entries = text, wall.entries
        return True


def ephemeral_ports() -> range:
    """The ports that the kernel draws from in the namespace that we are in. Raises OSError."""
    first, last = map(int, _RANGE.read_text().split())
    return range(first, last + 1)


def _without_passing_peers(wall: Wall, reconciler: Reconciler) -> Wall:
    """Peers of `vllmwall peers add` live in /run: a reboot ends them."""
    lasting_ones: list[Network] = [
        network
        for source in reconciler.peers.sources()
        if source.kind != "runtime"
        for network in source.networks
    ]
    return replace(wall, networks={**wall.networks, PEERS: merged(lasting_ones)})


def _remote_shells(listeners: list[Listener], reconciler: Reconciler) -> Iterator[Door]:
    """Where the operator comes in: no fence may close it, configured or not."""
    for one in listeners:
        owners = (reconciler.observer.process(pid) for pid in one.pids)
        if one.proto is Proto.TCP and any(
            owner is not None and owner.comm in _REMOTE_SHELLS for owner in owners
        ):
            yield one.proto, one.port


def _read(file: Path) -> str:
    """What an earlier daemon wrote; nothing where that cannot be read."""
    try:
        return file.read_text()
    except (OSError, ValueError):
        return ""
