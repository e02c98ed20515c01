"""A probe for guards on this kernel: by using one, in a temporary network namespace.

A kernel can lack nft_socket, know it only for other hooks, number the depths of a container's
cgroups in its own way (before Linux 6.11), or not note a socket's cgroup at all (net_cls or
net_prio in use, before 5.16). So a connection is made to a socket of our own cgroup, and counted.
"""

from __future__ import annotations

import fcntl
import re
import socket
import struct
from pathlib import Path

from vllmwall.enforce.backend import EnforceError
from vllmwall.enforce.nftables.cgroups import opened
from vllmwall.enforce.nftables.libnftables import Libnftables
from vllmwall.enforce.nftables.syntax import SYN
from vllmwall.linux.cgroups import level_of, mount_point, number_of
from vllmwall.linux.netns import OWN, run_in_new
from vllmwall.model import Guard

_SIOCSIFFLAGS, _IFF_UP = 0x8914, 1  # linux/sockios.h, linux/if.h
_TABLE = """
table inet vllmwall_probe {{
	set cgroups {{
		type cgroupsv2
		{elements}
	}}
	chain input {{
		type filter hook input priority filter; policy accept;
		meta sdif 1 socket transparent {{ 0, 1 }} reject with tcp reset
		{syn} socket cgroupv2 level {level} @cgroups counter
	}}
}}
"""


def why_no_guards() -> str:
    """Why this kernel supports no guards, in words; empty: it does."""
    if mount_point() is None:
        return "no cgroup v2 hierarchy is mounted"
    try:
        return run_in_new(_try_here)
    except EnforceError as error:
        return f"the kernel does not take `socket cgroupv2`: {first_line(error)}"
    except OSError as error:
        return f"not tried: {error}"


def first_line(error: Exception) -> str:
    """What went wrong, without the script."""
    return str(error).partition("\n")[0]


def _try_here() -> str:
    path = _own_cgroup()
    mount = mount_point()
    number = number_of(path, mount) if mount and level_of(path) else None
    guards = [Guard(level_of(path), number, path)] if number else []
    library = Libnftables()
    with opened(guards) as cgroups:
        elements = f"elements = {{ {', '.join(cgroups.values())} }}" if cgroups else ""
        level = level_of(path) or 1
        library.run(OWN, _TABLE.format(elements=elements, level=level, syn=SYN))
        if not cgroups:  # we are in the root, which no socket can be told by
            return ""
    _connect_to_ourselves()
    listed = library.run(OWN, "list chain inet vllmwall_probe input")
    if re.search(r"counter packets [1-9]", listed):
        return ""
    return f"`socket cgroupv2 level {level}` does not match a socket of {path}"


def _own_cgroup() -> str:
    for line in Path("/proc/self/cgroup").read_text(errors="replace").splitlines():
        if line.startswith("0::"):
            return line[3:]
    return "/"


def _connect_to_ourselves() -> None:
    with socket.socket() as listening, socket.socket() as calling:
        fcntl.ioctl(listening, _SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", _IFF_UP))
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        calling.settimeout(1)
        calling.connect(listening.getsockname())
