"""The tables of the configuration as pydantic models, except those about this host.

A field's ``title`` says what to write, its ``description`` what it does, its first example is what
the sample file shows. Together they make the reference page and the JSON schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from vllmwall.config.values import (
    AcceptanceValue,
    FileGlob,
    HostName,
    MetricsAddress,
    MetricsFile,
    NetworkValue,
    Pattern,
    PortValue,
    Seconds,
    UnixGroup,
    WorkloadName,
)
from vllmwall.model import Network
from vllmwall.recognize.definitions import Match, WorkloadDefinition


class Section(BaseModel):
    """One table of the file: frozen, and an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PeersSection(Section):
    """Trusted peers: hosts that may connect to internal ports, usually the nodes of the cluster."""

    cidrs: tuple[NetworkValue, ...] = Field(
        default=(),
        title="list of CIDRs",
        description="Networks and addresses, IPv4 and IPv6.",
        examples=[["10.0.0.0/24", "fd00:10::/64"]],
    )
    files: tuple[FileGlob, ...] = Field(
        default=(),
        title="list of paths",
        description=(
            "Files with one CIDR per line; # starts a comment. Wildcards are allowed. The files "
            "must belong to root and be writable by root only."
        ),
        examples=[["/etc/vllmwall/peers.d/*.txt"]],
    )
    dns: tuple[HostName, ...] = Field(
        default=(),
        title="list of DNS names",
        description=(
            "Names whose A and AAAA records are peers. If a name does not resolve, its last "
            "valid answer is used."
        ),
        examples=[["gpu-nodes.internal"]],
    )
    allow_everyone: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Allow 0.0.0.0/0 or ::/0 as a peer. Every port of every workload is then open to "
            "everyone."
        ),
        examples=[False],
    )
    _by_file: Mapping[str, tuple[Network, ...]] | None = PrivateAttr(default=None)

    @property
    def by_file(self) -> Mapping[str, tuple[Network, ...]]:
        """``cidrs`` by the file that contains them."""
        if self._by_file is not None:
            return self._by_file
        return {"configuration": self.cidrs} if self.cidrs else {}


class MatchSection(Section):
    """Finds the first process of the workload. Every key that is set must match."""

    exe: Pattern | None = Field(
        default=None, title="glob", description="Its executable.", examples=["/opt/my-server/*"]
    )
    argv: Pattern | None = Field(
        default=None,
        title="glob",
        description="Its command line, joined by single spaces.",
        examples=["*my_server.main*"],
    )
    unit: Pattern | None = Field(
        default=None, title="glob", description="Its systemd unit.", examples=["my-llm.service"]
    )
    image: Pattern | None = Field(
        default=None, title="glob", description="Image of its container.", examples=["*/my-llm:*"]
    )
    cgroup: Pattern | None = Field(
        default=None, title="glob", description="Its cgroup's path.", examples=["/batch/job-*"]
    )

    @model_validator(mode="after")
    def _matches_something(self) -> MatchSection:
        if not self.model_fields_set:
            raise ValueError(f"needs at least one of {', '.join(_MATCH_KEYS)}")
        return self


_MATCH_KEYS = tuple(MatchSection.model_fields)


class WorkloadSection(Section):
    """A workload definition: software that vllmwall does not recognize by itself."""

    name: WorkloadName = Field(
        title="name", description="Its name in the status. Must be unique.", examples=["my-server"]
    )
    match: MatchSection = Field(
        title=f"table with {', '.join(_MATCH_KEYS)}",
        description="How to find its first process. The children belong to it too.",
        examples=[{"unit": "my-llm.service"}],
    )
    api_ports: tuple[PortValue, ...] = Field(
        default=(),
        title="list of ports",
        description="Ports of its API. All its other ports are internal.",
        examples=[[9000]],
    )

    def definition(self) -> WorkloadDefinition:
        """As `recognize` takes it."""
        match = Match(**self.match.model_dump())
        return WorkloadDefinition(self.name, match, frozenset(self.api_ports))


class GuardsSection(Section):
    """Guards: rules on cgroups of workloads that close their ports before they open."""

    enabled: bool = Field(
        default=True,
        strict=True,
        title="true or false",
        description=(
            "Block strangers from a workload's container, unit or scope when it starts, at every "
            "TCP port except its API. With false, each port is closed when it opens."
        ),
        examples=[True],
    )
    units: tuple[Pattern, ...] = Field(
        default=(),
        title="list of globs",
        description=(
            "Systemd units or cgroup paths that contain only workloads. They are guarded as soon "
            "as their cgroup is created, even at their first start."
        ),
        examples=[["vllm@*.service"]],
    )


class BootSection(Section):
    """Protection between boot and the daemon's first pass."""

    fence: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Allow only peers to connect to ephemeral TCP ports until the daemon has applied its "
            "wall. Ssh, failsafe ports and known API ports stay open; other programs' ephemeral "
            "ports do not."
        ),
        examples=[False],
    )


class DaemonSection(Section):
    """The daemon itself."""

    full_pass_seconds: Seconds = Field(
        default=30.0,
        title="number, 1 to 3600",
        description=(
            "Seconds between two full passes. Events are handled at once; full passes find what "
            "events do not report."
        ),
    )
    log: Literal["auto", "journal", "json", "console"] = Field(
        default="auto",
        title='"auto", "journal", "json" or "console"',
        description="Destination of the log; auto is the journal under systemd.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        title='"debug", "info", "warning" or "error"',
        description="Minimum log level.",
    )


class ControlSection(Section):
    """The control socket, /run/vllmwall/control.sock."""

    group: UnixGroup = Field(
        default="vllmwall",
        title="group name",
        description="Members of this group may read the status; only root may make changes.",
    )


class AuditSection(Section):
    """Requirements of `vllmwall audit`."""

    allowed_models: tuple[Pattern, ...] = Field(
        default=(),
        title="list of globs",
        description=(
            "Models that may be served here, as named on the command line. Any other model is a "
            "finding. If it is not set, any model may be served."
        ),
        examples=[["meta-llama/*", "/srv/models/*"]],
    )
    checksums: FileGlob | None = Field(
        default=None,
        title="path",
        description=(
            "A file in the format of sha256sum, with one line for each file of each model: the "
            "path as the workload sees it, or one that ends in the names of model and file. A "
            "file of a served model that differs or is not listed is a finding. The checksum "
            "file must belong to root and be writable by root only."
        ),
        examples=["/etc/vllmwall/weights.sha256"],
    )
    accepted: tuple[AcceptanceValue, ...] = Field(
        default=(),
        title="list of FINDING[@WORKLOAD][ until YYYY-MM-DD]",
        description=(
            "Accepted findings: they are counted, but not shown, and do not fail the audit. "
            "FINDING and WORKLOAD may be globs."
        ),
        examples=[["vllm-docs-pages", "container-host-ipc@llama until 2027-01-31"]],
    )


class MetricsSection(Section):
    """Metrics for Prometheus. Off unless listen or textfile is set."""

    listen: MetricsAddress = Field(
        default="",
        title='"ADDRESS:PORT", "unix:PATH" or ""',
        description=(
            "Address for GET /metrics: a loopback address, or a unix socket for root and the "
            'control group. "" turns it off.'
        ),
        examples=["127.0.0.1:9837"],
    )
    textfile: MetricsFile = Field(
        default="",
        title="path that ends in .prom",
        description="A file for node_exporter's textfile collector, replaced after every pass.",
        examples=["/var/lib/prometheus/node-exporter/vllmwall.prom"],
    )
    allow_remote: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Allow listen to be an address that other hosts can reach. The metrics show what "
            "runs here and what is open."
        ),
        examples=[False],
    )

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
