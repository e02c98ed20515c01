"""What the kernel can do for us: each feature tried, or read where trying would leave a trace."""

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
from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok, warn
from vllmwall.linux import netlink
from vllmwall.linux.cgroups import mount_point
from vllmwall.linux.connections import SOCK_DIAG, decoded, handles
from vllmwall.linux.listeners import SocketDump
from vllmwall.linux.netns import OWN, inode_of, run_in_new
from vllmwall.model import PEERS, Proto, Wall, WallEntry
from vllmwall.observe.events import TRACEFS_MOUNTS

_OLDEST = (5, 10)
_EVENTS = ("sock/inet_sock_set_state", "sched/sched_process_exec", "cgroup/cgroup_mkdir")
_LISTEN = "syscalls/sys_enter_listen"
_LOCKDOWN = Path("/sys/kernel/security/lockdown")


def features() -> Iterator[Diagnosis]:
    """Everything about the kernel."""
    yield _release()
    yield _nftables()
    yield _ownership()
    yield _cgroups()
    yield _guards()
    yield _events()
    yield _severing()
    yield _udp()


def _release() -> Diagnosis:
    release = platform.release()
    numbers = tuple(map(int, re.findall(r"\d+", release)[:2]))
    if numbers < _OLDEST:
        return fail("kernel", release, "Linux 5.10 or newer is needed")
    return ok("kernel", release)


def _nftables() -> Diagnosis:
    """The whole table, in a namespace of its own."""
    subject = "nftables"
    try:
        run_in_new(lambda: Libnftables().run(OWN, table(_wall(inode_of(OWN)))))
    except PermissionError as error:
        return warn(subject, f"not tried: {error}", "ask as root")
    except (OSError, EnforceError) as error:
        why = f"the kernel does not take our table: {first_line(error)}"
        return fail(subject, why, "a kernel with nf_tables, nft_socket and nft_reject_inet")
    return ok(subject, f"the kernel takes our table; {_nft()}")


def _nft() -> str:
    """What the command says of itself; we need it at boot only, and people for looking."""
    try:
        done = subprocess.run(["nft", "--version"], capture_output=True, text=True, check=True)
    except (OSError, subprocess.SubprocessError):
        return "there is no nft command, which vllmwall-boot.service needs"
    return done.stdout.strip()


def _ownership() -> Diagnosis:
    if why := why_not_owned():
        remedy = "Linux 6.10 lets us own it; until then a change by others is put right at once"
        return warn("ownership of the table", why, remedy)
    return ok("ownership of the table", "the kernel takes owner and persist: nobody can flush it")


def _cgroups() -> Diagnosis:
    mount = mount_point()
    if mount is None:
        remedy = "mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with the unified hierarchy"
        return warn("cgroup v2", "not mounted: no guards", remedy)
    hybrid = "" if mount == Path("/sys/fs/cgroup") else ", beside the v1 hierarchies"
    return ok("cgroup v2", f"at {mount}{hybrid}")


def _guards() -> Diagnosis:
    if why := why_no_guards():
        remedy = "a kernel with CONFIG_NFT_SOCKET; until then ports close as they open"
        return warn("guards", why, remedy)
    return ok("guards", "a socket is matched by its cgroup: ports close before they exist")


def _events() -> Diagnosis:
    subject = "events"
    folder = next((one for one in TRACEFS_MOUNTS if (one / "events").is_dir()), None)
    if folder is None:
        remedy = "mount -t tracefs none /sys/kernel/tracing; until then we look every second"
        return warn(subject, f"no tracefs is mounted{_locked_down()}", remedy)
    if "confidentiality" in _locked_down():  # files are there, and none can be opened
        remedy = "guards stand all the same; other ports close a second late"
        return warn(subject, f"{folder} tells nothing{_locked_down()}", remedy)
    missing = [one for one in (*_EVENTS, _LISTEN) if not (folder / "events" / one).is_dir()]
    if missing:
        return warn(subject, f"tracefs has no {', '.join(missing)}", "a kernel with these events")
    if not os.access(folder / "instances", os.W_OK):
        return warn(subject, f"{folder} may not be written{_locked_down()}", "ask as root")
    return ok(subject, f"tracefs at {folder}: a listener is seen as it opens")


def _locked_down() -> str:
    try:
        level = re.search(r"\[(\w+)\]", _LOCKDOWN.read_text())
    except OSError:
        return ""
    return f" (kernel lockdown: {level[1]})" if level and level[1] != "none" else ""


def _severing() -> Diagnosis:
    """By ending a connection of our own."""
    subject = "severing of connections"
    try:
        why = run_in_new(_sever_one)
    except (OSError, EnforceError) as error:
        return warn(subject, f"not tried: {error}", "ask as root")
    if why:
        return warn(subject, why, "a kernel with CONFIG_INET_DIAG_DESTROY")
    return ok(subject, "the kernel resets connections on request")


def _sever_one() -> str:
    """Why not, in words. Over lo, where the wall itself would sever nothing."""
    with IPRoute() as routes:
        routes.link("set", index=routes.link_lookup(ifname="lo")[0], state="up")
    with socket.socket() as listening, socket.socket() as calling:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        calling.connect(listening.getsockname())
        with listening.accept()[0], closing(netlink.opened(SOCK_DIAG)) as diag:
            port = listening.getsockname()[1]
            return (
                reset_all(diag, [decoded(*one) for one in handles(diag, {port})]).unsupported or ""
            )


def _udp() -> Diagnosis:
    sockets = SocketDump()
    try:
        sockets.listeners()
    finally:
        sockets.close()
    if not sockets.sees_udp:
        return warn("UDP sockets", "cannot be listed: no udp_diag", "modprobe udp_diag")
    return ok("UDP sockets", "udp_diag lists them")


def _wall(inode: int) -> Wall:
    entry = WallEntry(4, Proto.TCP, 29500, (PEERS,))
    return Wall(inode, frozenset({entry}), {PEERS: ()})
