"""The configuration as pydantic models: the one source of validation, sample and reference.

A field's ``title`` says what to write, its ``description`` what it does, its first example is
what the sample shows. A key that does nothing yet has no place here. What needs more than one
value to be judged is in `vllmwall.config.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Literal

from pydantic import Field, PrivateAttr, model_validator

from vllmwall.config.operator_rules import HostSection, LimitsSection, LogSection
from vllmwall.config.section import Section
from vllmwall.config.settings import MetricsSettings, PeerSettings, Settings
from vllmwall.config.values import (
    DEFAULT_KEY,
    POLICY_SCHEMA,
    SSH,
    AcceptanceValue,
    Audience,
    FileGlob,
    GroupName,
    GroupNetworks,
    HostName,
    MetricsAddress,
    MetricsFile,
    NetworkValue,
    Pattern,
    PortValue,
    RoleName,
    Seconds,
    UnixGroup,
    WorkloadName,
)
from vllmwall.model import PEERS, PUBLIC, Mode, Network, Policy, Role
from vllmwall.recognize.definitions import Match, WorkloadDefinition


class PeersSection(Section):
    """The hosts that may reach what only peers may: usually the other nodes of the cluster."""

    cidrs: tuple[NetworkValue, ...] = Field(
        default=(),
        title="list of CIDRs",
        description="Networks and addresses of peers, IPv4 and IPv6.",
        examples=[["10.0.0.0/24", "fd00:10::/64"]],
    )
    files: tuple[FileGlob, ...] = Field(
        default=(),
        title="list of paths",
        description=(
            "Files with one CIDR a line; # starts a comment. Wildcards are allowed. The files "
            "must belong to root and be writable by nobody else."
        ),
        examples=[["/etc/vllmwall/peers.d/*.txt"]],
    )
    dns: tuple[HostName, ...] = Field(
        default=(),
        title="list of DNS names",
        description=(
            "Names whose A and AAAA records are peers. While a name does not resolve, its last "
            "good answer stays."
        ),
        examples=[["gpu-nodes.internal"]],
    )
    allow_everyone: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Say true when cidrs or files hold 0.0.0.0/0 or ::/0 on purpose. Every port of every "
            "workload is then open to everyone."
        ),
        examples=[False],
    )
    _by_file: Mapping[str, tuple[Network, ...]] | None = PrivateAttr(default=None)

    @property
    def by_file(self) -> Mapping[str, tuple[Network, ...]]:
        """``cidrs`` by the file that they stand in."""
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
        default=None, title="glob", description="Its container's image.", examples=["*/my-llm:*"]
    )
    cgroup: Pattern | None = Field(
        default=None, title="glob", description="Its cgroup's path.", examples=["/batch/job-*"]
    )

    @model_validator(mode="after")
    def _matches_something(self) -> MatchSection:
        if not self.model_fields_set:
            raise ValueError(f"say how to find it: at least one of {', '.join(_MATCH_KEYS)}")
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
    """Guards: cgroups of workloads whose ports are closed before they exist."""

    enabled: bool = Field(
        default=True,
        strict=True,
        title="true or false",
        description=(
            "Close a workload's container, unit or scope to strangers as soon as it starts, at "
            "every TCP port but its API's. With false, ports are closed one by one as they open."
        ),
        examples=[True],
    )
    units: tuple[Pattern, ...] = Field(
        default=(),
        title="list of globs",
        description=(
            "Systemd units or cgroup paths in which nothing but workloads runs: guarded from the "
            "moment their cgroup is made, on their very first start too."
        ),
        examples=[["vllm@*.service"]],
    )


class BootSection(Section):
    """Until the daemon has spoken after a boot."""

    fence: bool = Field(
        default=False,
        strict=True,
        title="true or false",
        description=(
            "Let only peers connect to the ephemeral TCP ports until the daemon has put up its "
            "wall. Ports of ssh, failsafe ports and known APIs stay open; other programs' random "
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
            "Seconds between two full passes. Events start a pass at once; this is for what no "
            "event tells."
        ),
    )
    log: Literal["auto", "journal", "json", "console"] = Field(
        default="auto",
        title='"auto", "journal", "json" or "console"',
        description="Where the log goes; auto takes the journal under systemd.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info",
        title='"debug", "info", "warning" or "error"',
        description="The least important messages that are logged.",
    )


class ControlSection(Section):
    """The control socket, /run/vllmwall/control.sock."""

    group: UnixGroup = Field(
        default="vllmwall",
        title="group name",
        description="Members of this group may ask for the status; only root may change things.",
    )


class AuditSection(Section):
    """What `vllmwall audit` shall hold workloads to."""

    allowed_models: tuple[Pattern, ...] = Field(
        default=(),
        title="list of globs",
        description=(
            "Models that may be served here, as they are named on the command line. Any other is "
            "a finding. Without the list, any model may be served."
        ),
        examples=[["meta-llama/*", "/srv/models/*"]],
    )
    checksums: FileGlob | None = Field(
        default=None,
        title="path",
        description=(
            "A file as sha256sum writes it, with one line for each file of each model: the path "
            "as the workload sees it, or one that ends in the model's name and the file's. A file "
            "of a served model that differs, or has no line, is a finding. The file must belong "
            "to root and be writable by nobody else."
        ),
        examples=["/etc/vllmwall/weights.sha256"],
    )
    accepted: tuple[AcceptanceValue, ...] = Field(
        default=(),
        title="list of FINDING[@WORKLOAD][ until YYYY-MM-DD]",
        description=(
            "Findings that are known and accepted: they are counted, and neither shown nor "
            "failed on. FINDING and WORKLOAD may be globs."
        ),
        examples=[["vllm-docs-pages", "container-host-ipc@llama until 2027-01-31"]],
    )


class MetricsSection(Section):
    """What Prometheus is told. Off unless one of the two is set."""

    listen: MetricsAddress = Field(
        default="",
        title='"ADDRESS:PORT", "unix:PATH" or ""',
        description=(
            "Where GET /metrics is answered: an address of this host alone, or a unix socket for "
            'root and the control group. "" is nowhere.'
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
            "Say true when listen names an address that other hosts can reach on purpose. The "
            "metrics tell whoever asks what runs here and what is open."
        ),
        examples=[False],
    )

    @model_validator(mode="after")
    def _is_for_this_host(self) -> MetricsSection:
        host = self.listen.rpartition(":")[0].strip("[]")
        is_local = self.listen.startswith("unix:") or not host or ip_address(host).is_loopback
        if not is_local and not self.allow_remote:
            raise ValueError(
                f"{self.listen} can be reached from other hosts, and the metrics tell what is open "
                "here; use 127.0.0.1 or a unix socket, or say metrics.allow_remote = true"
            )
        return self


class Config(Section):
    """The whole configuration. ``Config()`` is what an empty file means."""

    mode: Mode = Field(
        default=Mode.ENFORCE,
        title='"enforce" or "audit"',
        description="audit counts what would be dropped, and drops nothing.",
    )
    peers: PeersSection = Field(default_factory=PeersSection)
    roles: dict[RoleName, Audience] = Field(
        default_factory=dict,
        alias="policy",
        title="audience or list of audiences",
        description=(
            "Who may connect, by role. Audiences: public (everyone), peers, node (this host "
            "only), and your groups. A role that is not named here has the audience of default. "
            "default cannot be public: a role is opened by its own name."
        ),
        examples=[{"api": "public", "metrics": ["peers", "monitoring"], "default": "peers"}],
        json_schema_extra=POLICY_SCHEMA,
    )
    groups: dict[GroupName, GroupNetworks] = Field(
        default_factory=dict,
        title="list of CIDRs",
        description=(
            "Your own audiences: name = networks. No address may be in two groups, so that every "
            "source has one name; where two may connect, name both in [policy]."
        ),
        examples=[{"monitoring": ["10.9.0.5/32"]}],
    )
    workloads: tuple[WorkloadSection, ...] = Field(default=(), alias="workload")
    host: HostSection = Field(default_factory=HostSection)
    limits: LimitsSection = Field(default_factory=LimitsSection)
    log: LogSection = Field(default_factory=LogSection)
    guards: GuardsSection = Field(default_factory=GuardsSection)
    boot: BootSection = Field(default_factory=BootSection)
    daemon: DaemonSection = Field(default_factory=DaemonSection)
    control: ControlSection = Field(default_factory=ControlSection)
    metrics: MetricsSection = Field(default_factory=MetricsSection)
    audit: AuditSection = Field(default_factory=AuditSection)
    _files: tuple[Path, ...] = PrivateAttr(default=())

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that this was read from, in the order in which they were merged."""
        return self._files

    def policy(self) -> Policy:
        """Role to audience, and what else `decide` needs."""
        named = {Role(key): names for key, names in self.roles.items() if key != DEFAULT_KEY}
        return Policy(
            audiences={Role.API: (PUBLIC,), **named},
            default=self.roles.get(DEFAULT_KEY, (PEERS,)),
            groups=self.groups,
            failsafe=frozenset((one.proto, one.port) for one in (SSH, *self.host.failsafe)),
            mode=self.mode,
            lockdown=self.host.lockdown,
            opened=frozenset((one.proto, one.port) for one in self.host.open),
            api_users=self.host.api_uids(),
            api_units=self._api_units(),
            limits=self.limits.limits(),
            log=self.log.log(),
        )

    def _api_units(self) -> tuple[str, ...]:
        named = (each.match.unit for each in self.workloads)
        return (*self.guards.units, *filter(None, named))

    def definitions(self) -> tuple[WorkloadDefinition, ...]:
        """The workload definitions, as `recognize` takes them."""
        return tuple(each.definition() for each in self.workloads)

    def settings(self) -> Settings:
        """What the daemon takes from it."""
        peers, metrics, daemon = self.peers, self.metrics, self.daemon
        return Settings(
            files=self.files,
            policy=self.policy(),
            definitions=self.definitions(),
            peers=PeerSettings(peers.by_file, peers.files, peers.dns, peers.allow_everyone),
            metrics=MetricsSettings(metrics.listen, metrics.textfile),
            guards=self.guards.enabled,
            guarded_units=self.guards.units,
            boot_fence=self.boot.fence,
            full_pass_seconds=daemon.full_pass_seconds,
            log=daemon.log,
            log_level=daemon.log_level,
            control_group=self.control.group,
        )

    def noted(self, files: tuple[Path, ...], cidrs: Mapping[str, tuple[Network, ...]]) -> Config:
        """This configuration, with where it was read from."""
        self._files = files
        self.peers._by_file = cidrs
        return self
