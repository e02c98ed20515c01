"""The daemon and what it stands on: its answer, its configuration, its unit."""

from __future__ import annotations

import grp
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

from vllmwall.config import ConfigError, load
from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok, warn

_SYSTEMD = Path("/run/systemd/system")  # sd_booted(3)
_UNIT = "vllmwall.service"


def surroundings(
    status: Mapping[str, object] | None, why_no_status: str, config: str
) -> Iterator[Diagnosis]:
    """Everything of ours. ``status`` is the daemon's answer; None: ``why_no_status``."""
    yield from _daemon(status, why_no_status)
    yield _configuration(config)
    yield from _peers(status)
    yield from _unit()
    yield _group(config)


def _daemon(status: Mapping[str, object] | None, why: str) -> Iterator[Diagnosis]:
    if status is None:
        yield fail("daemon", why, "systemctl enable --now vllmwall, or: vllmwall daemon")
        return
    verdict = str(status["verdict"])
    yield ok("daemon", verdict) if status["safe"] else fail("daemon", verdict, "vllmwall status")
    daemon = status.get("daemon")
    if not isinstance(daemon, Mapping):
        return
    if daemon["events"] != "tracefs":
        seen = f"the daemon gets none from tracefs: {daemon['events_reason']}"
        remedy = "guards stand all the same; other ports close a second late"
        yield warn("the daemon's events", seen, remedy)
    lost = daemon.get("events_lost")
    if lost:
        seen = f"{lost} events were lost; full passes made up for it"
        yield warn("events lost", seen, "less noise: fewer short-lived python processes")


def _configuration(config: str) -> Diagnosis:
    try:
        loaded = load(Path(config))
    except ConfigError as error:
        return fail("configuration", str(error), f"mend it, then: vllmwall check {config}")
    files = ", ".join(map(str, loaded.files)) or f"{config} is not there; the defaults hold"
    return ok("configuration", f"{files}; mode {loaded.mode.value}")


def _peers(status: Mapping[str, object] | None) -> Iterator[Diagnosis]:
    peers = (status or {}).get("peers")
    if isinstance(peers, Mapping) and not peers["networks"]:
        seen = "none: no other host reaches an internal port, which hangs a multi-node job"
        yield warn("peers", seen, "vllmwall learn proposes them; vllmwall peers add CIDR --save")


def _unit() -> Iterator[Diagnosis]:
    if not _SYSTEMD.is_dir():
        yield warn("systemd", "this node was not booted by it", "see to it that the daemon starts")
        return
    for unit, verb in ((_UNIT, "is-enabled"), ("vllmwall-boot.service", "is-enabled")):
        done = subprocess.run(
            ["systemctl", verb, unit], capture_output=True, text=True, check=False, timeout=5
        )
        state = done.stdout.strip() or "not there"
        if done.returncode == 0:
            yield ok(unit, state)
        else:
            yield warn(unit, f"{state}: after a boot it does not run", f"systemctl enable {unit}")


def _group(config: str) -> Diagnosis:
    try:
        name = load(Path(config)).control.group
        members = grp.getgrnam(name).gr_mem
    except ConfigError:
        return warn("group", "not known: the configuration does not load", "mend it")
    except KeyError:
        remedy = f"groupadd --system {name}"
        return warn("group", f"no group {name}: only root may ask for the status", remedy)
    return ok("group", f"{name}: {', '.join(members) or 'no members; root asks'}")
