"""The configuration as one pydantic model: source of validation, sample, reference and schema.

Every key has an effect. Checks of several values together are in `vllmwall.config.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from pydantic import Field, PrivateAttr

from vllmwall.config.host_sections import HostSection, LimitsSection, LogSection
from vllmwall.config.sections import (
    AuditSection,
    BootSection,
    ControlSection,
    DaemonSection,
    GuardsSection,
    MetricsSection,
    PeersSection,
    Section,
    WorkloadSection,
)
from vllmwall.config.settings import MetricsSettings, PeerSettings, Settings
from vllmwall.config.values import (
    DEFAULT_KEY,
    POLICY_SCHEMA,
    SSH,
    Audience,
    GroupName,
    GroupNetworks,
    RoleName,
)
from vllmwall.model import PEERS, PUBLIC, Mode, Network, Policy, Role
from vllmwall.recognize.definitions import WorkloadDefinition


class Config(Section):
    """The whole configuration. ``Config()`` is that of an empty file."""

    mode: Mode = Field(
        default=Mode.ENFORCE,
        title='"enforce" or "audit"',
        description="audit counts the packets that enforce would drop, and drops none.",
    )
    peers: PeersSection = Field(default_factory=PeersSection)
    roles: dict[RoleName, Audience] = Field(
        default_factory=dict,
        alias="policy",
        title="audience or list of audiences",
        description=(
            "Who may connect, by role. Audiences: public (everyone), peers, node (this host "
            "only), and your groups. Roles that are not listed use default, which cannot be "
            "public."
        ),
        examples=[{"api": "public", "metrics": ["peers", "monitoring"], "default": "peers"}],
        json_schema_extra=POLICY_SCHEMA,
    )
    groups: dict[GroupName, GroupNetworks] = Field(
        default_factory=dict,
        title="list of CIDRs",
        description=(
            "Your own audiences: name = networks. No address may be in two groups. To allow two "
            "groups, name both in [policy]."
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
        """The files that it was read from, in the order of merging."""
        return self._files

    def policy(self) -> Policy:
        """The policy for `decide`."""
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
        """The daemon's settings."""
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
        """This configuration, with the files that it was read from."""
        self._files = files
        self.peers._by_file = cidrs
        return self
