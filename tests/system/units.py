"""Unit files that boxes of several tests have."""

from __future__ import annotations

from tests.system.box import ADDRESS

UNITS = "/etc/systemd/system"
NETWORK = f"""[Unit]
DefaultDependencies=no
After=network-pre.target
Before=network.target
[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=sh -c "ip address add {ADDRESS}/32 dev host0; ip link set lo up; ip link set host0 up"
ExecStart=ip route add default dev host0 scope link
[Install]
WantedBy=sysinit.target
"""
