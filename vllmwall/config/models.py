"""The configuration as one pydantic model: source of validation, sample, reference and schema.

Every key has an effect, and words in `keys.toml`. Checks of several values together are in
`vllmwall.config.checks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain, repeat
from pathlib import Path

from pydantic import Field, PrivateAttr

from vllmwall.config.programs import ProgramSection
from vllmwall.config.sections import (
    ApiSection,
    AuditSection,
    BootSection,
    ControlSection,
    DaemonSection,
    GuardsSection,
    HostSection,
    LimitsSection,
    LogSection,
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
from vllmwall.recognize.rows import Row


class Config(Section):
    """The whole configuration. ``Config()`` is that of an empty file."""

    mode: Mode = Mode.ENFORCE
    peers: PeersSection = PeersSection()
    roles: dict[RoleName, Audience] = Field({}, alias="policy", json_schema_extra=POLICY_SCHEMA)
    groups: dict[GroupName, GroupNetworks] = Field({})
    workloads: tuple[WorkloadSection, ...] = Field((), alias="workload")
    programs: tuple[ProgramSection, ...] = Field((), alias="program")
    apis: tuple[ApiSection, ...] = Field((), alias="api")
    host: HostSection = HostSection()
    limits: LimitsSection = LimitsSection()
    log: LogSection = LogSection()
    guards: GuardsSection = GuardsSection()
    boot: BootSection = BootSection()
    daemon: DaemonSection = DaemonSection()
    control: ControlSection = ControlSection()
    metrics: MetricsSection = MetricsSection()
    audit: AuditSection = AuditSection()
    _cidrs: Mapping[Path, tuple[Network, ...]] = PrivateAttr(default_factory=dict)
    _places: tuple[str, ...] = PrivateAttr(())

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that it was read from, in the order of merging."""
        return tuple(self._cidrs)

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

    def rows(self) -> tuple[Row, ...]:
        """The programs that the operator taught us, as `recognize` takes them."""
        places = chain(self._places, repeat("the configuration"))
        return tuple(each.row(place) for each, place in zip(self.programs, places, strict=False))

    def settings(self) -> Settings:
        """The daemon's settings."""
        peers, metrics, daemon = self.peers, self.metrics, self.daemon
        by_file = {str(file): cidrs for file, cidrs in self._cidrs.items() if cidrs}
        return Settings(
            files=self.files,
            policy=self.policy(),
            definitions=self.definitions(),
            rows=self.rows(),
            apis=tuple(each.opened() for each in self.apis),
            peers=PeerSettings(
                by_file, peers.files, peers.dns, peers.allow_everyone, peers.hold_seconds
            ),
            adopt=peers.adopt,
            metrics=MetricsSettings(metrics.listen, metrics.textfile),
            guards=self.guards.enabled,
            guarded_units=self.guards.units,
            boot_fence=self.boot.fence,
            full_pass_seconds=daemon.full_pass_seconds,
            log=daemon.log,
            log_level=daemon.log_level,
            control_group=self.control.group,
        )

    def read_from(
        self, cidrs: Mapping[Path, tuple[Network, ...]], places: tuple[str, ...]
    ) -> Config:
        """This configuration, with the peers.cidrs of each file that it was read from, and the
        place of each program."""
        self._cidrs, self._places = cidrs, places
        return self
