"""Checks of the process on the host: user, container, TCPStore, Ray, RDMA."""

from __future__ import annotations

from collections.abc import Callable

from vllmwall.inspect.audit.rules import Rule
from vllmwall.inspect.audit.types import (
    CheckResult,
    Confinement,
    Match,
    Requirements,
    Subject,
    Unclear,
)
from vllmwall.model import Role

# Docker's and containerd's own set: moby daemon/pkg/oci/caps/defaults.go
_DEFAULT_CAPABILITIES = 0x00000000A80425FB
# linux/capability.h, in the order of their numbers
_NAMES = tuple(
    """CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP
    LINUX_IMMUTABLE NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER
    SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE
    SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF
    CHECKPOINT_RESTORE""".split()  # noqa: SIM905 (forty quoted words read worse)
)
# RDMA pins memory: vLLM's own guides for it ask for IPC_LOCK.
_HARMLESS = 1 << _NAMES.index("IPC_LOCK")
_UNREADABLE = "the process cannot be read"


def root(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """Its user is root, and that is the host's root."""
    confined = subject.confinement
    if confined is None or confined.uid is None:
        return Unclear(_UNREADABLE)
    if confined.uid != 0 or confined.own_users:
        return None
    return Match("user 0" + (", in a container" if confined.container else ""))


def privileged(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """Every capability of the kernel."""
    confined = subject.confinement
    if confined is None:
        return Unclear(_UNREADABLE)
    if not _is_plain_container(confined) or not _has_all(confined):
        return None
    return Match("it holds every capability of this kernel")


def capabilities(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """More than the runtime's default."""
    confined = subject.confinement
    if confined is None:
        return Unclear(_UNREADABLE)
    if not _is_plain_container(confined) or _has_all(confined):
        return None
    more = _held(confined) & ~(_DEFAULT_CAPABILITIES | _HARMLESS)
    return Match(", ".join(capability_names(more))) if more else None


def capability_names(mask: int) -> list[str]:
    """``SYS_ADMIN`` and so on; a number for what is newer than this table."""
    return [
        _NAMES[bit] if bit < len(_NAMES) else f"capability {bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    ]


def writable_root(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """The root mount is not read-only."""
    return _of_container(subject, lambda one: one.writable_root, "/ is mounted rw")


def new_privileges(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """no_new_privs is off."""
    return _of_container(subject, lambda one: not one.no_new_privileges, "NoNewPrivs is 0")


def seccomp(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """No filter."""
    return _of_container(subject, lambda one: one.seccomp == 0, "Seccomp is 0")


def host_pid(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """The host's process namespace."""
    return _of_container(subject, lambda one: one.host_pid, "its pid namespace is the host's")


def host_ipc(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """The host's IPC namespace."""
    return _of_container(subject, lambda one: one.host_ipc, "its ipc namespace is the host's")


def runtime_socket(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """A socket of Docker, containerd, CRI-O or Podman inside."""
    confined = subject.confinement
    if confined is None:
        return Unclear(_UNREADABLE)
    if not confined.container or not confined.runtime_sockets:
        return None
    return Match(f"mounted: {', '.join(confined.runtime_sockets)}")


def tcpstore(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """A store on all interfaces."""
    places = tuple(one for one in subject.of_role(Role.TCPSTORE) if one.is_wildcard)
    return Match(", ".join(one.where for one in places), places) if places else None


def ray_dashboard(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """The dashboard beyond loopback."""
    return _beyond_loopback(subject, Role.RAY_DASHBOARD)


def ray_client(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """The client server beyond loopback."""
    return _beyond_loopback(subject, Role.RAY_CLIENT_SERVER)


def rdma(rule: Rule, subject: Subject, required: Requirements) -> CheckResult:
    """Open RDMA devices."""
    return Match(f"open: {', '.join(subject.rdma)}") if subject.rdma else None


def _beyond_loopback(subject: Subject, role: Role) -> CheckResult:
    places = tuple(one for one in subject.of_role(role) if one.is_exposed)
    return Match(", ".join(one.where for one in places), places) if places else None


def _of_container(
    subject: Subject, is_bad: Callable[[Confinement], bool], what: str
) -> CheckResult:
    confined = subject.confinement
    if confined is None:
        return Unclear(_UNREADABLE)
    return Match(what) if confined.container and is_bad(confined) else None


def _is_plain_container(confined: Confinement) -> bool:
    """In a user namespace of its own, capabilities are not those of the host."""
    return confined.container and not confined.own_users


def _held(confined: Confinement) -> int:
    """The capabilities that it has or can regain: non-root users do so by setuid programs."""
    return confined.effective | confined.bounding


def _has_all(confined: Confinement) -> bool:
    every = confined.all_capabilities
    return every != 0 and _held(confined) & every == every
