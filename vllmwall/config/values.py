"""Readers of single configuration values.

Each function takes a value from TOML and returns it, or raises ValueError with what is wrong and
what is allowed. The pydantic types that use them are at the end.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import date
from difflib import get_close_matches
from ipaddress import ip_address
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, WithJsonSchema
from pydantic.config import JsonDict

from vllmwall.cidr import everyone_in, parse_network
from vllmwall.config.problems import shown
from vllmwall.model import BUILT_IN_AUDIENCES, PUBLIC, Network, Proto, Role

DEFAULT_KEY = "default"
# Unix sockets receive no packets, so an audience for them would have no effect.
_UNIX_ROLES = (Role.UNIX, Role.ZMQ_IPC)
ROLE_NAMES = tuple(role.value for role in Role if role not in _UNIX_ROLES)
_NAME = re.compile(r"[a-z][a-z0-9_-]{0,30}")
_HOST_NAME = re.compile(r"(?=.{1,253}$)([A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9])?\.?)+")
_ACCEPTANCE = re.compile(
    r"(?P<finding>[][!A-Za-z0-9*?-]{3,64})(?:@(?P<workload>[^\s@]{1,200}))?"
    r"(?: until (?P<until>[0-9-]+))?"
)


class FailsafePort(NamedTuple):
    """One port that is never walled, written ``tcp/22``."""

    proto: Proto
    port: int

    def __str__(self) -> str:
        return f"{self.proto.value}/{self.port}"


class Acceptance(NamedTuple):
    """An accepted finding of `vllmwall audit`, for some workloads, and until a date."""

    finding: str
    workload: str = "*"
    until: date | None = None

    def counts_on(self, day: date) -> bool:
        """Whether it is still valid. The last day counts."""
        return self.until is None or day <= self.until

    def __str__(self) -> str:
        of = "" if self.workload == "*" else f"@{self.workload}"
        return f"{self.finding}{of}" + (f" until {self.until}" if self.until else "")


SSH = FailsafePort(Proto.TCP, 22)


def read_network(value: object) -> Network:
    """One CIDR or address."""
    return parse_network(_string(value, "a CIDR like 10.0.0.0/24"))


def read_group(networks: tuple[Network, ...]) -> tuple[Network, ...]:
    """A group's networks: at least one, and not all addresses."""
    if not networks:
        raise ValueError("a group needs at least one network. Add one, or delete the group.")
    if everyone_in(networks):
        raise ValueError(
            "this group covers all addresses. Use the audience public for the roles that everyone "
            "may reach."
        )
    return networks


def read_group_name(value: str) -> str:
    """A name for [policy] that is not a built-in audience."""
    if value in BUILT_IN_AUDIENCES:
        raise ValueError(f"{value} is a built-in audience. Give the group another name.")
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{shown(value)} is not a group name. Use a lower-case letter, then up to 30 of "
            "a-z 0-9 _ -"
        )
    return value


def read_role(value: str) -> str:
    """A key of [policy]: a role or ``default``."""
    if value in _UNIX_ROLES:
        raise ValueError(f"{value} listeners are unix sockets, which receive no packets")
    if value not in (*ROLE_NAMES, DEFAULT_KEY):
        raise ValueError(
            f"{shown(value)} is not a role{suggestion(value, (*ROLE_NAMES, DEFAULT_KEY))}; allowed "
            f"are {', '.join(ROLE_NAMES)} and {DEFAULT_KEY}"
        )
    return value


def read_audience(value: object) -> tuple[str, ...]:
    """One audience name, or several: sorted and without repeats."""
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"must be an audience or a list of audiences, not {shown(value)}")
    if not names:
        raise ValueError('an empty list allows nobody. Use "node" for this host only.')
    if PUBLIC in names and set(names) != {PUBLIC}:
        raise ValueError("public includes everyone. Use it alone.")
    return tuple(sorted(set(names)))


def read_failsafe(value: object) -> FailsafePort:
    """``tcp/22``."""
    text = _string(value, 'like "tcp/22"')
    proto, _, port = text.partition("/")
    if proto not in ("tcp", "udp") or not _is_port(port):
        raise ValueError(
            f'{shown(text)} is not a port with a protocol. Write "tcp/22" or "udp/123".'
        )
    return FailsafePort(Proto(proto), int(port))


def read_acceptance(value: object) -> Acceptance:
    """``FINDING``, ``FINDING@WORKLOAD``, either with `` until YYYY-MM-DD``."""
    text = _string(value, 'like "vllm-docs-pages until 2027-01-31"')
    match = _ACCEPTANCE.fullmatch(text)
    if match is None or not match["finding"].strip("*?"):
        raise ValueError(
            f"{shown(text)} names no finding. Write FINDING or FINDING@WORKLOAD, and after it "
            '" until YYYY-MM-DD" for an end'
        )
    try:
        until = date.fromisoformat(match["until"]) if match["until"] else None
    except ValueError:
        raise ValueError(f"{shown(match['until'])} is not a date. Write YYYY-MM-DD.") from None
    return Acceptance(match["finding"], match["workload"] or "*", until)


def suggestion(word: str, words: tuple[str, ...]) -> str:
    """``(did you mean X?)`` where one of ``words`` is close, otherwise nothing."""
    close = get_close_matches(word, words, n=1, cutoff=0.75)
    return f" (did you mean {close[0]}?)" if close else ""


def _string(value: object, wanted: str) -> str:
    if not isinstance(value, str):
        raise ValueError(f"must be {wanted} in quotes, not {shown(value)}")
    return value


def _is_port(text: str) -> bool:
    return bool(re.fullmatch("[0-9]{1,5}", text)) and 1 <= int(text) <= 65535


def _is_metrics_address(text: str) -> bool:
    if not text or text.startswith("unix:/"):
        return "\0" not in text and len(text) < 100
    host, _, port = text.rpartition(":")
    try:
        address = ip_address(host.strip("[]") if host.startswith("[") else host)
    except ValueError:
        return False
    return _is_port(port) and (address.version == 6) == host.startswith("[")


def _is_metrics_file(text: str) -> bool:
    return not text or (_is_path(text) and text.endswith(".prom"))


def _is_path(text: str) -> bool:
    return text.startswith("/") and "\0" not in text


def _text(is_valid: Callable[[str], object], complaint: str) -> AfterValidator:
    """A check of a text. ``complaint`` says after the text what is wrong and what to write."""

    def checked(text: str) -> str:
        if not is_valid(text):
            raise ValueError(f"{shown(text)} {complaint}")
        return text

    return AfterValidator(checked)


_TEXT = WithJsonSchema({"type": "string"})
NetworkValue = Annotated[Network, PlainValidator(read_network), _TEXT]
GroupName = Annotated[str, AfterValidator(read_group_name)]
GroupNetworks = Annotated[tuple[NetworkValue, ...], AfterValidator(read_group)]
RoleName = Annotated[str, AfterValidator(read_role)]
_AUDIENCE_SCHEMA: JsonDict = {
    "anyOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}, "minItems": 1}]
}
_BY_ROLE: JsonDict = dict.fromkeys((*ROLE_NAMES, DEFAULT_KEY), _AUDIENCE_SCHEMA)
Audience = Annotated[
    tuple[str, ...], BeforeValidator(read_audience), WithJsonSchema(_AUDIENCE_SCHEMA)
]
POLICY_SCHEMA: JsonDict = {"properties": _BY_ROLE, "additionalProperties": False}
"""The keys of [policy], for an editor to complete."""
FailsafeValue = Annotated[
    FailsafePort,
    PlainValidator(read_failsafe),
    WithJsonSchema({"type": "string", "pattern": "^(tcp|udp)/[0-9]{1,5}$"}),
]
AcceptanceValue = Annotated[Acceptance, PlainValidator(read_acceptance), _TEXT]
Switch = Annotated[bool, Field(strict=True)]
PortValue = Annotated[int, Field(strict=True, ge=1, le=65535)]
Count = Annotated[int, Field(strict=True, ge=1, le=100_000)]
NflogGroup = Annotated[int, Field(strict=True, ge=0, le=65535)]
Seconds = Annotated[float, Field(strict=True, ge=1, le=3600, allow_inf_nan=False)]
HoldSeconds = Annotated[float, Field(strict=True, ge=0, le=604_800, allow_inf_nan=False)]
MetricsAddress = Annotated[
    str,
    _text(
        _is_metrics_address,
        'is not an address to listen on. Write "127.0.0.1:9837", "[::1]:9837", '
        '"unix:/run/vllmwall/metrics.sock", or "" for none',
    ),
]
MetricsFile = Annotated[
    str,
    _text(
        _is_metrics_file,
        "is not a file that node_exporter reads. Write an absolute path that ends in .prom.",
    ),
]
WorkloadName = Annotated[
    str,
    _text(
        re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}").fullmatch,
        "is not a workload name. Use a letter or digit, then up to 62 of A-Z a-z 0-9 . _ -",
    ),
]
RecognizedName = Annotated[
    str,
    _text(
        lambda text: text.strip() and text.isprintable() and len(text) <= 256,
        "is not the name of a workload as `vllmwall status` shows it",
    ),
]
Pattern = Annotated[
    str,
    _text(
        lambda text: text.strip("*?/ "),
        "matches every process of this node. Use a more specific pattern.",
    ),
]
FileGlob = Annotated[str, _text(_is_path, "is not an absolute path. Start it with /.")]
HostName = Annotated[
    str,
    _text(
        lambda text: not re.fullmatch(r"[0-9.]+|.*:.*", text),
        "is not a DNS name. Put addresses and CIDRs into peers.cidrs.",
    ),
    _text(_HOST_NAME.fullmatch, "is not a DNS name. Write one like gpu-nodes.internal."),
]
UnixGroup = Annotated[
    str,
    _text(  # useradd's rules
        re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}").fullmatch,
        "is not a group name. Use a group of this host, like adm.",
    ),
]
UserName = Annotated[
    str,
    _text(
        lambda text: text and text.isprintable() and len(text) <= 256,
        'is not a user. Write a login name or a uid, like "vllm".',
    ),
]
LogPrefix = Annotated[
    str,
    _text(  # nothing that nft or a log reader could take for more
        re.compile(r"[A-Za-z0-9 ._:/-]{1,64}").fullmatch,
        "is not a prefix. Use up to 64 letters, digits, spaces and . _ : / -",
    ),
]
