"""The tables of the configuration as pydantic models.

`keys.toml` says in words what each key means. Together they make the sample file, the reference
page and the JSON schema.
"""

from __future__ import annotations

import pwd
from ipaddress import ip_address
from typing import Literal

from pydantic import BaseModel, ConfigDict, model_validator

from vllmwall.config.values import (
    SSH,
    AcceptanceValue,
    Count,
    FailsafeValue,
    FileGlob,
    HoldSeconds,
    HostName,
    LogPrefix,
    MetricsAddress,
    MetricsFile,
    NetworkValue,
    NflogGroup,
    Pattern,
    PortValue,
    RecognizedName,
    Seconds,
    Switch,
    UnixGroup,
    UserName,
    WorkloadName,
)
from vllmwall.decide.opened import OpenedApi
from vllmwall.model import KernelLog, Limits
from vllmwall.recognize.definitions import Match, WorkloadDefinition


class Section(BaseModel):
    """One table of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PeersSection(Section):
    """Trusted peers: hosts that may connect to internal ports, usually the nodes of the cluster."""

    cidrs: tuple[NetworkValue, ...] = ()
    files: tuple[FileGlob, ...] = ()
    dns: tuple[HostName, ...] = ()
    hold_seconds: HoldSeconds = 600
    allow_everyone: Switch = False
    adopt: Switch = True


class MatchSection(Section):
    """Finds the first process of the workload. Every key that is set must match."""

    exe: Pattern | None = None
    argv: Pattern | None = None
    unit: Pattern | None = None
    image: Pattern | None = None
    cgroup: Pattern | None = None

    @model_validator(mode="after")
    def _matches_something(self) -> MatchSection:
        if not self.model_fields_set:
            raise ValueError(f"needs at least one of {', '.join(MatchSection.model_fields)}")
        return self


class WorkloadSection(Section):
    """A workload definition: software that vllmwall does not recognize by itself."""

    name: WorkloadName
    match: MatchSection
    api_ports: tuple[PortValue, ...] = ()

    def definition(self) -> WorkloadDefinition:
        """As `recognize` takes it."""
        match = Match(**self.match.model_dump())
        return WorkloadDefinition(self.name, match, frozenset(self.api_ports))


class ApiSection(Section):
    """A port that is the API of a workload: the section that `vllmwall api add --save` writes."""

    port: PortValue
    workload: RecognizedName
    force: Switch = False

    def opened(self) -> OpenedApi:
        """As `decide` takes it."""
        return OpenedApi(self.port, self.workload, self.force)


class HostSection(Section):
    """The host itself."""

    failsafe: tuple[FailsafeValue, ...] = (SSH,)
    lockdown: Switch = False
    open: tuple[FailsafeValue, ...] = ()
    api_users: tuple[UserName, ...] = ("root",)

    def api_uids(self) -> frozenset[int]:
        """The uids of ``api_users``. Unknown users are skipped."""
        return frozenset(uid for name in self.api_users if (uid := _uid(name)) is not None)


class LimitsSection(Section):
    """Limits for each source (IPv4 address or IPv6 /64) at public API ports.

    Peers and this host have no limits.
    """

    new_per_second: Count | None = None
    burst: Count | None = None
    connections: Count | None = None

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

    group: NflogGroup | None = None
    prefix: LogPrefix = "vllmwall "
    per_second: Count = 5

    @model_validator(mode="after")
    def _goes_somewhere(self) -> LogSection:
        if self.group is None and self.model_fields_set:
            raise ValueError("group is missing. Set it to the NFLOG group.")
        return self

    def log(self) -> KernelLog | None:
        """As the wall takes it."""
        return None if self.group is None else KernelLog(self.group, self.prefix, self.per_second)


class GuardsSection(Section):
    """Guards: rules on cgroups of workloads that close their ports before they open."""

    enabled: Switch = True
    units: tuple[Pattern, ...] = ()


class BootSection(Section):
    """Protection between boot and the daemon's first pass."""

    fence: Switch = False


class DaemonSection(Section):
    """The daemon itself."""

    full_pass_seconds: Seconds = 30.0
    log: Literal["auto", "journal", "json", "console"] = "auto"
    log_level: Literal["debug", "info", "warning", "error"] = "info"


class ControlSection(Section):
    """The control socket, /run/vllmwall/control.sock."""

    group: UnixGroup = "vllmwall"


class MetricsSection(Section):
    """Metrics for Prometheus. Off unless listen or textfile is set."""

    listen: MetricsAddress = ""
    textfile: MetricsFile = ""
    allow_remote: Switch = False

    @model_validator(mode="after")
    def _is_for_this_host(self) -> MetricsSection:
        host = self.listen.rpartition(":")[0].strip("[]")
        is_local = self.listen.startswith("unix:") or not host or ip_address(host).is_loopback
        if not is_local and not self.allow_remote:
            raise ValueError(
                f"{self.listen} can be reached from other hosts, and the metrics show what is open "
                "here. Use 127.0.0.1 or a unix socket, or set metrics.allow_remote = true."
            )
        return self


class AuditSection(Section):
    """Requirements of `vllmwall audit`."""

    allowed_models: tuple[Pattern, ...] = ()
    checksums: FileGlob | None = None
    accepted: tuple[AcceptanceValue, ...] = ()


def _uid(name: str) -> int | None:
    if name.isascii() and name.isdigit():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        return None
