"""The tables [host], [limits] and [log]."""

from __future__ import annotations

import pwd
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from vllmwall.config.problems import shown
from vllmwall.config.sections import Section
from vllmwall.config.values import SSH, FailsafeValue
from vllmwall.model import KernelLog, Limits

_MOST = 100_000


def read_user(value: object) -> str:
    """A login name, or a uid in digits."""
    if isinstance(value, str) and value and value.isprintable() and len(value) <= 256:
        return value
    raise ValueError(f'{shown(value)} is not a user. Write a login name or a uid, like "vllm".')


def read_prefix(value: object) -> str:
    """A prefix that has no special meaning for nft and log readers."""
    allowed = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._:/-")
    if isinstance(value, str) and 1 <= len(value) <= 64 and allowed.issuperset(value):
        return value
    raise ValueError(
        f"{shown(value)} is not a prefix. Use up to 64 letters, digits, spaces and . _ : / -"
    )


Count = Annotated[int, Field(strict=True, ge=1, le=_MOST)]
UserValue = Annotated[str, PlainValidator(read_user), WithJsonSchema({"type": "string"})]


class HostSection(Section):
    """The host itself."""

    failsafe: tuple[FailsafeValue, ...] = Field(
        default=(SSH,),
        title="list of tcp/PORT or udp/PORT",
        description=(
            "Ports that are never walled, whatever listens there. tcp/22 is always included."
        ),
        examples=[["tcp/22"]],
    )
    lockdown: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Block new connections to every port of the host's own network namespace, except API "
            "ports, failsafe ports and the ports in open. Replies to the host's own connections, "
            "DHCP and ICMP still work."
        ),
        examples=[False],
    )
    open: tuple[FailsafeValue, ...] = Field(
        default=(),
        title="list of tcp/PORT or udp/PORT",
        description="Ports that stay open to everyone in lockdown.",
        examples=[["tcp/9100", "udp/51820"]],
    )
    api_users: tuple[UserValue, ...] = Field(
        default=("root",),
        title="list of users",
        description=(
            "Users who may open an API in lockdown. System units in guards.units and in a "
            "workload's match.unit may too. Listeners of other users are internal."
        ),
        examples=[["root", "vllm"]],
    )

    def api_uids(self) -> frozenset[int]:
        """The uids of ``api_users``. Unknown users are skipped."""
        return frozenset(uid for name in self.api_users if (uid := _uid(name)) is not None)


class LimitsSection(Section):
    """Limits for each source (IPv4 address or IPv6 /64) at public API ports.

    Peers and this host have no limits.
    """

    new_per_second: Count | None = Field(
        default=None,
        title=f"number, 1 to {_MOST}",
        description="New connections per second. If it is not set, there is no limit.",
        examples=[20],
    )
    burst: Count | None = Field(
        default=None,
        title=f"number, 1 to {_MOST}",
        description="New connections at once. If it is not set: twice new_per_second.",
        examples=[40],
    )
    connections: Count | None = Field(
        default=None,
        title=f"number, 1 to {_MOST}",
        description=(
            "Concurrent connections. Needs conntrack, which then tracks all connections of that "
            "network namespace. If it is not set, there is no limit."
        ),
        examples=[100],
    )

    @model_validator(mode="after")
    def _burst_of_something(self) -> LimitsSection:
        if self.burst is not None and self.new_per_second is None:
            raise ValueError("burst has no effect without new_per_second")
        return self

    def limits(self) -> Limits | None:
        """As the wall takes them."""
        if self.new_per_second is None:
            return None if self.connections is None else Limits(connections=self.connections)
        burst = self.burst or 2 * self.new_per_second
        return Limits(self.new_per_second, burst, self.connections)


class LogSection(Section):
    """Kernel log of dropped packets, for ulogd or another reader of NFLOG."""

    group: Annotated[int, Field(strict=True, ge=0, le=65535)] | None = Field(
        default=None,
        title="number, 0 to 65535",
        description="The NFLOG group. If it is not set, nothing is logged.",
        examples=[100],
    )
    prefix: Annotated[str, PlainValidator(read_prefix), WithJsonSchema({"type": "string"})] = Field(
        default="vllmwall ",
        title="text",
        description="Prefix of each message.",
        examples=["vllmwall "],
    )
    per_second: Count = Field(
        default=5,
        title=f"number, 1 to {_MOST}",
        description="Maximum messages per second in each network namespace.",
        examples=[5],
    )

    @model_validator(mode="after")
    def _goes_somewhere(self) -> LogSection:
        if self.group is None and self.model_fields_set:
            raise ValueError("group is missing. Set it to the NFLOG group.")
        return self

    def log(self) -> KernelLog | None:
        """As the wall takes it."""
        return None if self.group is None else KernelLog(self.group, self.prefix, self.per_second)


def _uid(name: str) -> int | None:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
