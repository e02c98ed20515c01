"""Features of the kernel: each is tried, or read where a trial would leave a trace."""

from __future__ import annotations

import os
import platform
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from pyroute2 import IPRoute

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.libnftables import Libnftables
from vllmwall.enforce.nftables.ownership import why_not_owned
from vllmwall.enforce.nftables.probe import first_line, why_no_guards
from vllmwall.enforce.nftables.ruleset import table
from vllmwall.enforce.sever import reset_all
from vllmwall.engine.facts import DaemonFacts
from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok, warn
from vllmwall.linux import netlink
from vllmwall.linux.cgroups import mount_point
from vllmwall.linux.connections import decoded, handles
from vllmwall.linux.listeners import SocketDump
from vllmwall.linux.netns import OWN, inode_of, run_in_new
from vllmwall.linux.tracefs import MOUNTS
from vllmwall.model import PEERS, Proto, Wall, WallEntry

_AS_ROOT = "Run it as root."
_WITHOUT_EVENTS = "Guards work without events; other ports close up to a second late."
_OLDEST = (5, 10)
_EVENTS = ("sock/inet_sock_set_state", "sched/sched_process_exec", "cgroup/cgroup_mkdir")
_LISTEN = "syscalls/sys_enter_listen"
_LOCKDOWN = Path("/sys/kernel/security/lockdown")


def features(daemon: DaemonFacts | None) -> Iterator[Diagnosis]:
    """Everything about the kernel. ``daemon`` is its part of the status; None: it does not run."""
    yield _release()
    yield _nftables()
    yield _ownership()
    yield _cgroups()
    yield _guards()
    yield _events_of(daemon) if daemon else _events()
    yield _severing()
    yield _udp()


def _release() -> Diagnosis:
    release = platform.release()
    numbers = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if numbers < _OLDEST:
        return fail("kernel", release, "Use Linux 5.10 or newer.")
    return ok("kernel", release)


def _nftables() -> Diagnosis:
    """The whole table, in a namespace of its own."""
    subject = "nftables"
    try:
        run_in_new(_apply_table)
    except PermissionError as error:
        return warn(subject, f"not tried: {error}", _AS_ROOT)
    except (OSError, EnforceError) as error:
        why = f"the kernel refuses our table: {first_line(error)}"
        return fail(subject, why, "Use a kernel with nf_tables, nft_socket and nft_reject_inet.")
    return ok(subject, f"the kernel accepts our table; {_nft()}")


def _apply_table() -> None:
    entry = WallEntry(4, Proto.TCP, 29500, (PEERS,))
    wall = Wall(inode_of(OWN), frozenset({entry}), {PEERS: ()})
    Libnftables().run(OWN, table(wall).listing())


def _nft() -> str:
    """The version of the command, which only vllmwall-boot.service and people need."""
    try:
        done = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return "the nft command is missing, and vllmwall-boot.service needs it"
    return done.stdout.strip()


def _ownership() -> Diagnosis:
    if why := why_not_owned():
        remedy = (
            "Use Linux 6.10 or newer. Until then changes by other programs are repaired at once."
        )
        return warn("ownership of the table", why, remedy)
    return ok("ownership of the table", "supported: no other program can flush the table")


def _cgroups() -> Diagnosis:
    mount = mount_point()
    if mount is None:
        remedy = "Boot with the unified hierarchy, or: mount -t cgroup2 none /sys/fs/cgroup/unified"
        return warn("cgroup v2", "not mounted, so there are no guards", remedy)
    hybrid = "" if mount == Path("/sys/fs/cgroup") else ", together with the v1 hierarchies"
    return ok("cgroup v2", f"at {mount}{hybrid}")


def _guards() -> Diagnosis:
    if why := why_no_guards():
        remedy = "Use a kernel with CONFIG_NFT_SOCKET. Until then a port is closed when it opens."
        return warn("guards", why, remedy)
    return ok("guards", "sockets are matched by cgroup: ports are closed before they open")


def _events_of(daemon: DaemonFacts) -> Diagnosis:
    """From the daemon, which may have mounted tracefs for itself."""
    if daemon.events == "tracefs":
        return ok("events", "the daemon reads tracefs: it sees a listener when it opens")
    reason = f"the daemon cannot read tracefs: {daemon.events_reason}"
    return warn("events", reason, _WITHOUT_EVENTS)


def _events() -> Diagnosis:
    """From this process's own mounts."""
    subject = "events"
    folder = next((one for one in MOUNTS if (one / "events").is_dir()), None)
    if folder is None:
        remedy = f"mount -t tracefs none /sys/kernel/tracing. {_WITHOUT_EVENTS}"
        return warn(subject, f"tracefs is not mounted{_locked_down()}", remedy)
    if "confidentiality" in _locked_down():  # files are there, and none can be opened
        return warn(subject, f"{folder} cannot be read{_locked_down()}", _WITHOUT_EVENTS)
    missing = [one for one in (*_EVENTS, _LISTEN) if not (folder / "events" / one).is_dir()]
    if missing:
        remedy = "Use a kernel with these events."
        return warn(subject, f"tracefs has no {', '.join(missing)}", remedy)
    if not os.access(folder / "instances", os.W_OK):
        return warn(subject, f"{folder} cannot be written{_locked_down()}", _AS_ROOT)
    return ok(subject, f"tracefs at {folder}: a listener is seen when it opens")


def _locked_down() -> str:
    try:
        level = re.search(r"\[(\w+)\]", _LOCKDOWN.read_text())
    except OSError:
        return ""
    return f" (kernel lockdown: {level[1]})" if level and level[1] != "none" else ""


def _severing() -> Diagnosis:
    """By resetting a connection of our own."""
    subject = "reset of connections"
    try:
        why = run_in_new(_sever_one)
    except (OSError, EnforceError) as error:
        return warn(subject, f"not tried: {error}", _AS_ROOT)
    if why:
        return warn(subject, why, "Use a kernel with CONFIG_INET_DIAG_DESTROY.")
    return ok(subject, "the kernel resets connections on request")


def _sever_one() -> str:
    """Why it failed; empty: it did not. Over lo, where the wall itself resets nothing."""
    with IPRoute() as routes:
        routes.link("set", index=routes.link_lookup(ifname="lo")[0], state="up")
    with socket.socket() as listening, socket.socket() as calling:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        calling.connect(listening.getsockname())
        with listening.accept()[0], closing(netlink.opened(netlink.SOCK_DIAG)) as diag:
            port = listening.getsockname()[1]
            return (
                reset_all(diag, [decoded(*one) for one in handles(diag, {port})]).unsupported or ""
            )


def _udp() -> Diagnosis:
    with closing(SocketDump()) as sockets:
        sockets.listeners()
    if not sockets.sees_udp:
        return warn(
            "UDP sockets",
            "cannot be listed: the kernel module udp_diag is not loaded",
            "modprobe udp_diag",
        )
    return ok("UDP sockets", "listed by udp_diag")
