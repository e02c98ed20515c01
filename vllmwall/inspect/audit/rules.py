"""The tables of an audit, `knobs.toml` and `cves.toml`, read and validated.

They are data, so that a new check is one entry in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from functools import cache
from importlib.resources import files
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from vllmwall.config.toml import loads
from vllmwall.inspect.audit.types import Severity
from vllmwall.inspect.audit.versions import parse
from vllmwall.model import Stack


def _version(text: str) -> str:
    if text and parse(text) is None:
        raise ValueError(f"{text} is not a version")
    return text


VersionText = Annotated[str, BeforeValidator(_version)]
Words = tuple[str, ...]


class _Row(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Rule(_Row):
    """One thing that can be wrong. ``check`` names what looks for it (see knobs.toml)."""

    id: str = Field(pattern="^[a-z][a-z0-9-]+$")
    title: str = Field(min_length=10)
    severity: Severity
    walled: Severity | None = None
    stacks: tuple[Stack, ...]
    check: str
    flags: Words = ()
    variables: Words = ()
    exposed: bool = False
    since: VersionText = ""
    before: VersionText = ""
    why: str = Field(min_length=20)
    remedy: str = Field(min_length=20)
    source: str = Field(min_length=5)


class Endpoint(_Row):
    """A route of vLLM that its API key does not cover, and in which versions that is so.

    ``rust``: the frontend in Rust has it too.
    """

    path: str
    since: VersionText
    before: VersionText = ""
    rust: bool = True


class _Secret(_Row):
    flags: Words
    variables: Words


class _Variables(_Row):
    names: Words


class Knobs(_Row):
    """The whole of knobs.toml."""

    known: Mapping[Stack, Words]
    secret: _Secret
    variables: _Variables
    finding: tuple[Rule, ...]
    endpoint: tuple[Endpoint, ...]

    def flags_of(self, stack: Stack) -> frozenset[str]:
        """Every flag of a stack that any check reads."""
        named = {flag for rule in self.finding if stack in rule.stacks for flag in rule.flags}
        return frozenset(named | set(self.known.get(stack, ())))

    @property
    def variable_names(self) -> frozenset[str]:
        """Every variable that any check reads; no other ever leaves the reader."""
        named = {name for rule in self.finding for name in rule.variables}
        return frozenset(named | set(self.variables.names) | set(self.secret.variables))


class Beside(_Row):
    """A package that must be there too, below a version."""

    package: str
    before: VersionText


class Cve(_Row):
    """One known vulnerability of a package."""

    id: str = Field(pattern=r"^CVE-\d{4}-\d{4,7}$")
    package: str
    since: VersionText = ""
    before: VersionText = ""
    through: VersionText = ""
    recorded: VersionText = ""
    severity: Severity
    title: str = Field(min_length=10)
    flags: Words = ()
    variables: Words = ()
    beside: Beside | None = Field(default=None, alias="with")

    @property
    def why(self) -> str:
        """Why it matters."""
        public = "The vulnerability is public, and exploits often are too."
        if not self.recorded:
            return public
        return (
            f"{public} Its record names versions up to {self.recorded}; the code of later ones "
            "is the same."
        )

    @property
    def source(self) -> str:
        """Its record."""
        return f"https://www.cve.org/CVERecord?id={self.id}"

    @property
    def remedy(self) -> str:
        """The version to install."""
        if self.before:
            return f"Upgrade {self.package} to {self.before} or later."
        return (
            f"Upgrade {self.package} beyond {self.through}; until then, allow "
            "only peers to connect to the port."
        )


class Advisories(_Row):
    """The whole of cves.toml. ``date``: the newest record that its rows were held against."""

    date: date
    cve: tuple[Cve, ...]


@cache
def knobs() -> Knobs:
    """The table of knobs."""
    return Knobs.model_validate(_read("knobs.toml"))


@cache
def advisories() -> Advisories:
    """The table of known vulnerabilities, with its date."""
    return Advisories.model_validate(_read("cves.toml"))


def cves() -> tuple[Cve, ...]:
    """The known vulnerabilities."""
    return advisories().cve


def _read(name: str) -> dict[str, object]:
    text = files("vllmwall.inspect.audit").joinpath(name).read_text(encoding="utf-8")
    return dict(loads(text))
