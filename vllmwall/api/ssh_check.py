"""Whether a wall would end the ssh connection of who asks for it. Pure.

The wanted table is written as it would be sent and evaluated packet by packet, as `explain` does
it with the one that stands: so bans, lockdown and whatever comes are covered too.
"""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from vllmwall.enforce.evaluator import Packet, Socket, Verdict, evaluate, read_table
from vllmwall.enforce.evaluator.packet import SYN
from vllmwall.enforce.nftables.ruleset import table
from vllmwall.model import Address, Wall

_STATES = {"new": SYN, "established": frozenset({"ack"})}


@dataclass(frozen=True)
class SshConnection:
    """A connection to sshd on this host."""

    client: Address
    client_port: int
    address: Address
    port: int


def parsed(text: object) -> SshConnection | None:
    """From the words of ``SSH_CONNECTION`` (sshd(8)); None: it has not that form."""
    try:
        client, client_port, address, port = str(text).split()
        return SshConnection(_plain(client), int(client_port), _plain(address), int(port))
    except ValueError:
        return None


def locked_out(wall: Wall, ssh: SshConnection) -> str:
    """Which rule would refuse this connection, or the next one like it; empty: none would.

    Raises NotUnderstoodError where that cannot be told.
    """
    wanted = read_table(table(wall))
    for state, flags in _STATES.items():
        packet = Packet(
            source=ssh.client,
            destination=ssh.address,
            proto="tcp",
            sport=ssh.client_port,
            dport=ssh.port,
            flags=flags,
            interface="lo" if ssh.client.is_loopback else "eth0",
            socket=Socket(),
            state=state,
        )
        judged = evaluate(wanted, packet)
        if judged.verdict in (Verdict.DROP, Verdict.REJECT):
            return " → ".join(f"{step.chain}: {step.rule}" for step in judged.way)
    return ""


def _plain(text: str) -> Address:
    address = ip_address(text.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return mapped or address
