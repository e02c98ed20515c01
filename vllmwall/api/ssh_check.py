"""Refusal of changes that would end the ssh connection of the asking user, unless forced.

The wanted table is written as it would be sent and evaluated packet by packet, as `explain` does
with the active one, so bans, lockdown and future rules are covered too.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_address

from vllmwall.api.changes import ChangeRequest
from vllmwall.api.errors import ControlError
from vllmwall.enforce.evaluator import (
    NotUnderstoodError,
    Packet,
    Socket,
    Verdict,
    evaluate,
    read_table,
)
from vllmwall.enforce.evaluator.packet import SYN
from vllmwall.enforce.nftables.ruleset import table
from vllmwall.engine.reconciler import Reconciler
from vllmwall.engine.status_facts import NamespaceFacts
from vllmwall.model import Address, Wall

_HINT = "Nothing was changed. Add the port to [host] failsafe, or use --force."
_STATES = {"new": SYN, "established": frozenset({"ack"})}


@dataclass(frozen=True)
class SshConnection:
    """A connection to sshd on this host."""

    client: Address
    client_port: int
    address: Address
    port: int


def refuse_lockout(
    request: ChangeRequest, spaces: Iterable[NamespaceFacts], reconciler: Reconciler
) -> None:
    """Raise ControlError where these walls would end the asking user's ssh connection."""
    if not request.force and (why := would_lock_out(request.ssh, spaces, reconciler)):
        raise ControlError("failed", why, _HINT)


def would_lock_out(
    connection: str, spaces: Iterable[NamespaceFacts], reconciler: Reconciler
) -> str:
    """How these walls would end the asking user's ssh connection; empty: they would not.

    ``connection`` is SSH_CONNECTION (sshd(8)).
    """
    own = reconciler.observer.namespaces.own  # the network namespace that ssh comes to
    ssh = parsed(connection)
    wall = next((one.wanted for one in spaces if one.inode == own), None)
    if ssh is None or wall is None:
        return ""
    try:
        rules = locked_out(wall, ssh)
    except NotUnderstoodError as error:
        return f"it is not known whether your ssh connection would end: {error}"
    if not rules:
        return ""
    return f"your ssh connection from {ssh.client} to port {ssh.port} would end: {rules}"


def parsed(text: str) -> SshConnection | None:
    """From the words of ``SSH_CONNECTION`` (sshd(8)); None: it has not that form."""
    try:
        client, client_port, address, port = text.split()
        return SshConnection(_plain(client), int(client_port), _plain(address), int(port))
    except ValueError:
        return None


def locked_out(wall: Wall, ssh: SshConnection) -> str:
    """Which rule would refuse this connection, or the next one like it; empty: none would.

    Raises NotUnderstoodError where that cannot be told.
    """
    wanted = read_table(table(wall).listing())
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
