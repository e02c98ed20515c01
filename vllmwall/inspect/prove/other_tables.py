"""Other firewalls and kernel settings that may drop packets in a network namespace."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from vllmwall.observe.other_firewalls import other_chains

_SETTINGS = ("ipv4/conf/all/rp_filter", "ipv4/ip_forward", "ipv6/conf/all/forwarding")


def surroundings() -> list[str]:
    """For the namespace of the calling thread, a line each. Empty: there is nothing else."""
    chains = other_chains()
    names = sorted({f"{one.table} {one.name} ({one.hook})" for one in chains.found})
    lines = [f"other firewalls: {', '.join(names)}"] if names else []
    settings = ", ".join(_settings())
    return [*lines, *chains.problems, *([f"kernel: {settings}"] if settings else [])]


def _settings() -> Iterator[str]:
    for name in _SETTINGS:
        with suppress(OSError):
            value = Path("/proc/sys/net", name).read_text().strip()
            if value != "0":
                yield f"{name.replace('/', '.')}={value}"
