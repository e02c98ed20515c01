"""Checks of the process on the host: user, container, TCPStore, RDMA."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from vllmwall.inspect.audit.rules import Rule
from vllmwall.inspect.audit.types import (
    CheckResult,
    Confinement,
    Match,
    Place,
    Subject,
    Unclear,
)
from vllmwall.model import Role

Check = Callable[[Rule, Subject], CheckResult]

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


def root(rule: Rule, subject: Subject) -> CheckResult:
    """Its user is root, and that is the host's root."""
    confined = subject.confinement
    if confined is None or confined.uid is None:
        return Unclear(_UNREADABLE)
    if confined.uid != 0 or confined.own_users:
        return None
    return Match("user 0" + (", in a container" if confined.container else ""))


def capability_names(mask: int) -> list[str]:
    """``SYS_ADMIN`` and so on; a number for what is newer than this table."""
    return [
        _NAMES[bit] if bit < len(_NAMES) else f"capability {bit}"
        for bit in range(mask.bit_length())
        if mask >> bit & 1
    ]


def rdma(rule: Rule, subject: Subject) -> CheckResult:
    """Open RDMA devices."""
    return Match(f"open: {', '.join(subject.rdma)}") if subject.rdma else None


def tcpstore(rule: Rule, subject: Subject) -> CheckResult:
    """A store on all interfaces."""
    return places_of(one for one in subject.of_role(Role.TCPSTORE) if one.listener.is_wildcard)


def places_of(found: Iterable[Place]) -> Match | None:
    """A match that names these listeners; None where there are none."""
    places = tuple(found)
    return Match(", ".join(one.listener.where for one in places), places) if places else None


def of_container(seen: Callable[[Confinement], str]) -> Check:
    """A check for containers: ``seen`` says in words what is wrong with one; empty: nothing."""

    def check(_: Rule, subject: Subject) -> CheckResult:
        confined = subject.confinement
        if confined is None:
            return Unclear(_UNREADABLE)
        what = seen(confined) if confined.container else ""
        return Match(what) if what else None

    return check


def all_capabilities(confined: Confinement) -> str:
    """Every capability of the kernel."""
    is_privileged = not confined.own_users and _has_all(confined)
    return "it holds every capability of this kernel" if is_privileged else ""


def more_capabilities(confined: Confinement) -> str:
    """More than the runtime's default. In a user namespace of its own they are not the host's."""
    if confined.own_users or _has_all(confined):
        return ""
    return ", ".join(capability_names(_held(confined) & ~(_DEFAULT_CAPABILITIES | _HARMLESS)))


def _held(confined: Confinement) -> int:
    """The capabilities that it has or can regain: non-root users do so by setuid programs."""
    return confined.effective | confined.bounding


def _has_all(confined: Confinement) -> bool:
    every = confined.all_capabilities
    return every != 0 and _held(confined) & every == every
