"""What `vllmwall doctor --json` holds."""

from __future__ import annotations

from typing import Literal

from vllmwall.api.typed import TypedDict


class DiagnosisJson(TypedDict):
    """One thing that was looked at. ``remedy`` is empty where there is nothing to do."""

    subject: str
    state: Literal["ok", "warn", "fail"]
    seen: str
    remedy: str


class DoctorJson(TypedDict):
    """``healthy``: nothing is to mend."""

    version: int
    healthy: bool
    diagnoses: list[DiagnosisJson]
