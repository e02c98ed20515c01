"""The daemon's settings: plain values that pydantic has checked in another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from vllmwall.decide.opened import OpenedApi
from vllmwall.model import Network, Policy
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.rows import Row


@dataclass(frozen=True)
class PeerSettings:
    """The sources of peers. ``by_file``: the networks that each file of the configuration names;
    ``files`` are globs of others with networks in them, ``dns`` names. ``hold_seconds``: how long
    a network counts that its file or name no longer names."""

    by_file: Mapping[str, tuple[Network, ...]]
    files: tuple[str, ...]
    dns: tuple[str, ...]
    allow_everyone: bool
    hold_seconds: float


@dataclass(frozen=True)
class MetricsSettings:
    """Where metrics are provided; empty: nowhere."""

    listen: str
    textfile: str


@dataclass(frozen=True)
class Settings:
    """A configuration. ``files`` are those that it was read from, in the order of merging."""

    files: tuple[Path, ...]
    policy: Policy
    definitions: tuple[WorkloadDefinition, ...]
    rows: tuple[Row, ...]
    apis: tuple[OpenedApi, ...]
    peers: PeerSettings
    adopt: bool
    metrics: MetricsSettings
    guards: bool
    guarded_units: tuple[str, ...]
    boot_fence: bool
    full_pass_seconds: float
    log: str
    log_level: str
    control_group: str
