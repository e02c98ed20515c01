"""Traffic that bypasses netfilter (RDMA, XDP), and how full connection tracking is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from pyroute2 import IPRoute

from vllmwall.inspect.doctor.diagnosis import Diagnosis, fail, ok, warn

_CONNTRACK = Path("/proc/sys/net/netfilter")
_INFINIBAND = Path("/sys/class/infiniband")
_HIGH, _FULL = 0.7, 0.95  # of the table
_XDP_MODES = {1: "driver", 2: "generic", 3: "hardware", 4: "several"}  # linux/if_link.h


def bypasses() -> Iterator[Diagnosis]:
    """All of these."""
    yield _rdma()
    yield _xdp()
    yield _conntrack()


def _rdma() -> Diagnosis:
    devices = sorted(one.name for one in _INFINIBAND.iterdir()) if _INFINIBAND.is_dir() else []
    if devices:
        remedy = "Isolate its fabric (partition keys, VLANs): no host firewall filters RDMA."
        return warn(
            "RDMA", f"{', '.join(devices)}: its traffic bypasses every host firewall", remedy
        )
    return ok("RDMA", "no devices")


def _xdp() -> Diagnosis:
    """A program at a network device sees packets before any table does."""
    with IPRoute() as routes:
        links = {
            link.get_attr("IFLA_IFNAME"): link.get_attr("IFLA_XDP") for link in routes.get_links()
        }
    modes = {name: xdp.get_attr("IFLA_XDP_ATTACHED") for name, xdp in links.items() if xdp}
    busy = [f"{name} ({_XDP_MODES.get(mode, mode)})" for name, mode in modes.items() if mode]
    if busy:
        remedy = (
            "Check what it does: it can take packets before the wall sees them (Cilium, AF_XDP)."
        )
        return warn("XDP", f"programs are attached to {', '.join(busy)}", remedy)
    return ok("XDP", "no programs")


def _conntrack() -> Diagnosis:
    subject = "connection tracking"
    try:
        count = int((_CONNTRACK / "nf_conntrack_count").read_text())
        most = int((_CONNTRACK / "nf_conntrack_max").read_text())
    except (OSError, ValueError):
        return ok(subject, "not in use, and not needed by the wall")
    seen = f"{count} of {most} entries"
    remedy = "Raise net.netfilter.nf_conntrack_max."
    if count > _FULL * most:
        return fail(subject, f"{seen}: new connections fail", remedy)
    return warn(subject, seen, remedy) if count > _HIGH * most else ok(subject, seen)
