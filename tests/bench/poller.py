"""A rival: polls for new listeners once a second and closes them with a firewall's own tool.

    python poller.py iptables|ufw|firewall-cmd PEER

Written as such scripts usually are: psutil, subprocess, sleep. Runs on its own.
"""

from __future__ import annotations

import subprocess
import sys
import time

import psutil

_SECONDS = 1.0


def listening() -> set[int]:
    """The TCP ports with a listener, except on loopback."""
    return {
        one.laddr.port
        for one in psutil.net_connections(kind="tcp")
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.ip[:4] != "127."
    }


def commands(tool: str, port: int, peer: str) -> list[list[str]]:
    """The commands that close a port to every host except one peer."""
    iptables = ["iptables", "-w", "-A", "INPUT", "-p", "tcp", "--dport", str(port)]
    tcp = ["proto", "tcp", "from"]
    rich = f'rule family="ipv4" source NOT address="{peer}" port port="{port}" protocol="tcp" drop'
    return {
        "iptables": [[*iptables, "!", "-s", peer, "-j", "DROP"]],
        "ufw": [
            ["ufw", "allow", *tcp, peer, "to", "any", "port", str(port)],
            ["ufw", "deny", *tcp, "any", "to", "any", "port", str(port)],
        ],
        "firewall-cmd": [["firewall-cmd", f"--add-rich-rule={rich}"]],
    }[tool]


def main(tool: str, peer: str) -> None:
    """Poll until killed."""
    closed = listening()
    print("ready", flush=True)
    while True:
        time.sleep(_SECONDS)
        for port in listening() - closed:
            for command in commands(tool, port, peer):
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            closed.add(port)


if __name__ == "__main__":
    main(*sys.argv[1:])
