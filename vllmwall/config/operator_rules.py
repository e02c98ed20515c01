"""The tables [host], [limits] and [log]: what this host orders beside who may connect."""

from __future__ import annotations

import pwd
from typing import Annotated

from pydantic import Field, PlainValidator, WithJsonSchema, model_validator

from vllmwall.config.problems import shown
from vllmwall.config.section import Section
from vllmwall.config.values import SSH, FailsafeValue
from vllmwall.model import KernelLog, Limits

_MOST = 100_000


def read_user(value: object) -> str:
    """A login name, or a uid in digits."""
    if isinstance(value, str) and value and value.isprintable() and len(value) <= 256:
        return value
    raise ValueError(f'{shown(value)} is no user; write a login name or a uid, like "vllm"')


def read_prefix(value: object) -> str:
    """A prefix that means nothing to nft or to a log's reader."""
    allowed = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._:/-")
    if isinstance(value, str) and 1 <= len(value) <= 64 and allowed.issuperset(value):
        return value
    raise ValueError(
        f"{shown(value)} cannot be a prefix; use up to 64 letters, digits, spaces and . _ : / -"
    )


Count = Annotated[int, Field(strict=True, ge=1, le=_MOST)]
UserValue = Annotated[str, PlainValidator(read_user), WithJsonSchema({"type": "string"})]


class HostSection(Section):
    """This host."""

    failsafe: tuple[FailsafeValue, ...] = Field(
        default=(SSH,),
        title="list of tcp/PORT or udp/PORT",
        description=(
            "Ports that never enter a wall, whatever listens there. tcp/22 is always among them."
        ),
        examples=[["tcp/22"]],
    )
    lockdown: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Close every port of the host's own network namespace to new connections, but API "
            "ports, failsafe ports and those in open. Answers to what the host itself asks, "
            "DHCP and ICMP keep working."
        ),
        examples=[False],
    )
    open: tuple[FailsafeValue, ...] = Field(
        default=(),
        title="list of tcp/PORT or udp/PORT",
        description="Ports that stay open in lockdown, to everyone.",
        examples=[["tcp/9100", "udp/51820"]],
    )
    api_users: tuple[UserValue, ...] = Field(
        default=("root",),
        title="list of users",
        description=(
            "In lockdown, whose listeners may be an API. What runs in a system unit that "
            "guards.units or a workload's match.unit names may too. Others' are internal."
        ),
        examples=[["root", "vllm"]],
    )

    def api_uids(self) -> frozenset[int]:
        """The uids of ``api_users``. A user whom this host does not know is nobody."""
        return frozenset(uid for name in self.api_users if (uid := _uid(name)) is not None)


class LimitsSection(Section):
    """What one source may do at an API port that everyone may reach: an IPv4 address, an IPv6 /64.

    Peers and this host have no limit.
    """

    new_per_second: Count | None = Field(
        default=None,
        title=f"number, 1 to {_MOST}",
        description="New connections a second. Without it there is no such limit.",
        examples=[20],
    )
    burst: Count | None = Field(
        default=None,
        title=f"number, 1 to {_MOST}",
        description="How many of them may come at once. Without it: twice new_per_second.",
        examples=[40],
    )
    connections: Count | None = Field(
        default=None,
        title=f"number, 1 to {_MOST}",
        description=(
            "Connections at the same time. Needs conntrack, which then tracks everything in "
            "that network namespace. Without it there is no such limit."
        ),
        examples=[100],
    )

    @model_validator(mode="after")
    def _burst_of_something(self) -> LimitsSection:
        if self.burst is not None and self.new_per_second is None:
            raise ValueError("burst does nothing without new_per_second")
        return self

    def limits(self) -> Limits | None:
        """As the wall takes them."""
        if self.new_per_second is None:
            return None if self.connections is None else Limits(connections=self.connections)
        burst = self.burst or 2 * self.new_per_second
        return Limits(self.new_per_second, burst, self.connections)


class LogSection(Section):
    """Have the kernel tell of refused packets, for ulogd or another reader of NFLOG."""

    group: Annotated[int, Field(strict=True, ge=0, le=65535)] | None = Field(
        default=None,
        title="number, 0 to 65535",
        description="The NFLOG group. Without it nothing is logged.",
        examples=[100],
    )
    prefix: Annotated[str, PlainValidator(read_prefix), WithJsonSchema({"type": "string"})] = Field(
        default="vllmwall ",
        title="text",
        description="What each message begins with.",
        examples=["vllmwall "],
    )
    per_second: Count = Field(
        default=5,
        title=f"number, 1 to {_MOST}",
        description="Messages a second at most, in each network namespace.",
        examples=[5],
    )

    @model_validator(mode="after")
    def _goes_somewhere(self) -> LogSection:
        if self.group is None and self.model_fields_set:
            raise ValueError("say where the log goes: group is missing")
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
