"""The confinement of a process, from ``/proc``: user, capabilities, mounts, namespaces.

Sources: proc(5), linux/capability.h. Reading needs root.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Mapping

from vllmwall.inspect.audit.collect.files import View
from vllmwall.inspect.audit.types import Confinement
from vllmwall.observe.proc import read, read_cgroup

# docker, containerd, CRI-O and podman put the container's id into the cgroup's path
_CONTAINER_ID = re.compile(r"(?:^|[/:-])[0-9a-f]{64}(?:\.scope)?(?:/|$)")
_SOCKETS = ("docker.sock", "containerd/containerd.sock", "crio/crio.sock", "podman/podman.sock")
_SYS_ADMIN = 1 << 21  # linux/capability.h
_OVERLAYS = frozenset({"overlay", "fuse.fuse-overlayfs", "squashfs"})


def confinement(pid: int) -> Confinement | None:
    """How this process is confined; None when it may not be read or is gone."""
    status = _fields(read(f"/proc/{pid}/status").decode(errors="replace"))
    if "CapEff" not in status:
        return None
    options, kind = _root_mount(read(f"/proc/{pid}/mountinfo").decode(errors="replace"))
    is_container = _is_container(pid, kind)
    return Confinement(
        uid=int(status.get("Uid", "0 0").split()[1]),
        container=is_container,
        own_users=_is_apart(pid, "user"),
        effective=int(status["CapEff"], 16),
        bounding=int(status.get("CapBnd", "0"), 16),
        all_capabilities=_all_capabilities(),
        no_new_privileges=status.get("NoNewPrivs", "1") == "1",
        seccomp=int(status["Seccomp"]) if "Seccomp" in status else None,
        writable_root="rw" in options,
        host_pid=not _is_apart(pid, "pid"),
        host_ipc=not _is_apart(pid, "ipc"),
        runtime_sockets=_runtime_sockets(pid) if is_container else (),
    )


def _fields(text: str) -> Mapping[str, str]:
    pairs = (line.partition(":") for line in text.splitlines())
    return {key: value.strip() for key, _, value in pairs}


def _root_mount(mountinfo: str) -> tuple[tuple[str, ...], str]:
    """The options and the file system of the topmost mount on ``/``."""
    options: tuple[str, ...] = ()
    kind = ""
    for line in mountinfo.splitlines():
        fields = line.split(" ")
        if len(fields) > 5 and fields[4] == "/" and "-" in fields:
            options = tuple(fields[5].split(","))
            kind = fields[fields.index("-") + 1]
    return options, kind


def _is_container(pid: int, root_kind: str) -> bool:
    """By its cgroup's name; or by an overlay for root in mounts of its own (podman, enroot)."""
    if _CONTAINER_ID.search(read_cgroup(pid)):
        return True
    return _is_apart(pid, "mnt") and root_kind in _OVERLAYS and _has_another_root(pid)


def _has_another_root(pid: int) -> bool:
    try:
        return not os.path.samestat(os.stat(f"/proc/{pid}/root/"), os.stat("/"))  # noqa: PTH116
    except OSError:
        return False


def _is_apart(pid: int, kind: str) -> bool:
    """It is in another namespace of this kind than the host (where init hides: than we)."""
    for host in ("1", "self"):
        try:
            here = os.readlink(f"/proc/{host}/ns/{kind}")  # noqa: PTH115
            return os.readlink(f"/proc/{pid}/ns/{kind}") != here  # noqa: PTH115
        except OSError:
            continue
    return False


def _all_capabilities() -> int:
    """What the host itself has: a virtual machine or an outer container may have fewer than the
    kernel knows. Where we are confined ourselves, all that the kernel knows."""
    text = read("/proc/sys/kernel/cap_last_cap").strip()
    known = (1 << (int(text) + 1)) - 1 if text.isdigit() else 0
    for host in ("1", "self"):
        status = _fields(read(f"/proc/{host}/status").decode(errors="replace"))
        if "CapBnd" in status:
            held = int(status["CapBnd"], 16)
            return held if held & _SYS_ADMIN else known
    return known


def _runtime_sockets(pid: int) -> tuple[str, ...]:
    view = View(pid)
    found: dict[str, None] = {}
    for name in _SOCKETS:
        for folder in ("/run", "/var/run"):
            path = view.resolve(f"{folder}/{name}")
            status = view.status(path) if path else None
            if path and status is not None and stat.S_ISSOCK(status.st_mode):
                found[path] = None
    return tuple(found)
