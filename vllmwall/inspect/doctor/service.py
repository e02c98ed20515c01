"""The daemon, its configuration, its peers, its systemd units and its group."""

from __future__ import annotations

import grp
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vllmwall.api.status_answer import Status
from vllmwall.config import ConfigError, load
from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok, warn
from vllmwall.model import Address
from vllmwall.observe.addresses import bridge_addresses_here, shared_by_nat

_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_UNIT = "vllmwall.service"


def surroundings(status: Status | None, why_no_status: str, config: str) -> Iterator[Diagnosis]:
    """All of these. ``status`` is the daemon's answer; None: there is none, ``why_no_status``."""
    yield from _daemon(status, why_no_status)
    yield _configuration(config)
    yield from _peers(status)
    yield from _unit()
    yield _group(config)


def _daemon(status: Status | None, why: str) -> Iterator[Diagnosis]:
    if status is None:
        yield fail("daemon", why, "systemctl enable --now vllmwall, or: vllmwall daemon")
        return
    verdict = status.verdict
    yield ok("daemon", verdict) if status.safe else fail("daemon", verdict, "vllmwall status")
    lost = status.daemon.events_lost if status.daemon else 0
    if lost:
        seen = f"{lost} events were lost, and full passes replaced them"
        yield warn("events lost", seen, "Start fewer short-lived Python processes.")


def _configuration(config: str) -> Diagnosis:
    try:
        loaded = load(Path(config))
    except ConfigError as error:
        return fail("configuration", str(error), f"Correct it. Check with: vllmwall check {config}")
    files = ", ".join(map(str, loaded.files)) or f"{config} does not exist; the defaults apply"
    return ok("configuration", f"{files}; mode {loaded.mode.value}")


def _peers(status: Status | None) -> Iterator[Diagnosis]:
    if status is not None and not status.peers.networks:
        seen = "none: no other host can connect to an internal port, so multi-node jobs hang"
        yield warn(
            "peers", seen, "Let `vllmwall learn` propose them, or: vllmwall peers add CIDR --save"
        )
    for network, why in shared_by_nat(status.peers.networks, _bridges()) if status else ():
        remedy = "Name networks of peers that do not hold the node's own bridges."
        yield fail(f"peers, {network}", why, remedy)


def _bridges() -> dict[Address, str]:
    try:
        return bridge_addresses_here()
    except OSError:
        return {}


def _unit() -> Iterator[Diagnosis]:
    if not _SYSTEMD.is_dir():
        remedy = "Start vllmwall from your own service manager."
        yield warn("systemd", "not running as PID 1", remedy)
        return
    for unit in (_UNIT, "vllmwall-boot.service"):
        done = subprocess.run(
            ["systemctl", "is-enabled", unit],
            capture_output=True,
            text=True,
            check=False,
            timeout=5,
        )
        state = done.stdout.strip() or "not installed"
        if done.returncode == 0:
            yield ok(unit, state)
        else:
            yield warn(unit, f"{state}: it does not start at boot", f"systemctl enable {unit}")


def _group(config: str) -> Diagnosis:
    try:
        name = load(Path(config)).control.group
        members = grp.getgrnam(name).gr_mem
    except ConfigError:
        return warn("group", "unknown: the configuration is invalid", f"vllmwall check {config}")
    except KeyError:
        remedy = f"groupadd --system {name}"
        return warn("group", f"no group {name}: only root can read the status", remedy)
    return ok("group", f"{name}: {', '.join(members) or 'no members'}")
