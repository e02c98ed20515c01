"""The rivals: a poller that runs once a second and calls a firewall's own tool.

Each rival has a host of its own in the lab. Its files below /etc and /run are private to its mount
namespace, so the machine's own ufw and firewalld are not affected.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tests.bench.programs import Conversation
from tests.bench.stage import Stage
from tests.support.lab import PEER, Host

# In its own namespace: closed connections leave conntrack at once. Otherwise a full table would
# look like a firewall that has closed the port.
_SHORT_MEMORY = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close"

_UFW = """
cp -r /etc/ufw "$1/ufw" && cp /etc/default/ufw "$1/default-ufw"
sed -i 's/^IPT_SYSCTL=.*/IPT_SYSCTL=/' "$1/default-ufw"
mount --bind "$1/ufw" /etc/ufw && mount --bind "$1/default-ufw" /etc/default/ufw
ufw --force default allow incoming && ufw --force enable
"""
_FIREWALLD = """
mkdir -p "$1/firewalld" && echo DefaultZone=trusted >"$1/firewalld/firewalld.conf"
cat >"$1/bus.conf" <<END
<busconfig><type>system</type><listen>unix:path=$1/bus</listen><auth>EXTERNAL</auth>
<policy context="default"><allow user="*"/><allow own="*"/><allow send_destination="*"/>
<allow receive_sender="*"/><allow send_type="method_call"/></policy></busconfig>
END
export DBUS_SYSTEM_BUS_ADDRESS="unix:path=$1/bus"
dbus-daemon --nofork --config-file="$1/bus.conf" &
while ! [ -S "$1/bus" ]; do sleep 0.05; done
firewalld --nofork --nopid --system-config "$1/firewalld" &
n=0; until firewall-cmd --state; do n=$((n + 1)); [ $n -lt 40 ]; sleep 0.25; done
"""


class NotRunError(Exception):
    """A rival that does not work here, with the reason."""


@dataclass(frozen=True)
class Rival:
    """A firewall tool that a poller calls. ``prepare`` gets a folder of its own as $1."""

    name: str
    tool: str
    prepare: str = ""

    @contextlib.contextmanager
    def on_duty(self, stage: Stage) -> Iterator[Host]:
        """A host on which the poller runs. Raises NotRunError."""
        if shutil.which(self.tool) is None:
            raise NotRunError(f"{self.tool} is not installed")
        folder = stage.folder / self.tool
        folder.mkdir()
        number = 30 + len(self.name)
        host = stage.lab.host(self.tool, f"192.0.2.{number}", f"2001:db8::{number}")
        try:
            running = Conversation(host, self._command(folder))
        except EOFError as error:
            last = (folder / "log").read_text().strip().splitlines()[-1:]
            raise NotRunError(" ".join(last) or str(error)) from error
        with running:
            yield host

    def _command(self, folder: Path) -> list[str]:
        poll = f'exec "$2" "{Path(__file__).with_name("poller.py")}" {self.tool} {PEER[0]}'
        forget = f"! [ -e {_SHORT_MEMORY} ] || echo 1 >{_SHORT_MEMORY}"
        lines = ["set -eu", 'exec 3>&1 >"$1/log" 2>&1', "mount -t tmpfs none /run"]
        script = "\n".join([*lines, self.prepare, forget, f"{poll} >&3"])
        return ["sh", "-c", script, "sh", str(folder), sys.executable]


RIVALS = (
    Rival("1 s poller + iptables", "iptables"),
    Rival("1 s poller + ufw", "ufw", _UFW),
    Rival("1 s poller + firewall-cmd", "firewall-cmd", _FIREWALLD),
)
