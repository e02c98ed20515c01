"""The table ``[[program]]``: rows like those of `stacks.toml`, written by the operator."""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, WithJsonSchema, model_validator

from vllmwall.config.problems import shown
from vllmwall.config.sections import Section
from vllmwall.config.values import ROLE_NAMES, Pattern, PortValue, WorkloadName, suggestion
from vllmwall.model import Role, Stack
from vllmwall.recognize.inputs import ENV_KEYS, SAFE_SHORT_FLAGS, is_kept
from vllmwall.recognize.row_file import row_of
from vllmwall.recognize.rows import Row

_STACKS = tuple(stack.value for stack in Stack)
_VARIABLES = tuple(sorted(ENV_KEYS))
_PLAIN_PART = re.compile(r"[A-Za-z0-9_]{2}")
_WORD = re.compile(r"[A-Za-z0-9-][A-Za-z0-9._-]{0,62}")
_SHORT = re.compile(r"-[A-Za-z][A-Za-z0-9-]{0,30}")


def _one_of(text: str, what: str, allowed: tuple[str, ...]) -> str:
    if text not in allowed:
        raise ValueError(
            f"{shown(text)} is not {what}{suggestion(text, allowed)}; allowed are "
            f"{', '.join(allowed)}"
        )
    return text


def _read_stack(text: str) -> str:
    return _one_of(text, "a stack", _STACKS)


def _read_role(text: str) -> str:
    return _one_of(text, "a role of a port", ROLE_NAMES)


def _read_variable(text: str) -> str:
    return _one_of(text, "a variable that vllmwall reads", _VARIABLES)


def _read_rest(text: str) -> str:
    if text == Role.API.value:
        raise ValueError(
            "a program's name alone does not make an API. Name its ports in ports, with flags, env "
            "or numbers."
        )
    return _read_role(text)


def _read_name(text: str) -> str:
    if not _PLAIN_PART.search(text.removesuffix(".py").replace("*.", "")):
        raise ValueError(
            f"{shown(text)} matches nearly every program of this node. Use a more specific name."
        )
    return text


def _read_word(text: str) -> str:
    if not _WORD.fullmatch(text):
        raise ValueError(f"{shown(text)} is not one word of a command line, like serve or --serve")
    return text


def _read_flag(text: str) -> str:
    if not is_kept(text):
        raise ValueError(
            f"{shown(text)} is not the name of a flag with a port. Write it without dashes; its "
            "last part is port, bind, listen, addr or address, as in http-port"
        )
    return text


def _read_short(text: str) -> str:
    if text not in SAFE_SHORT_FLAGS and not (_SHORT.fullmatch(text) and is_kept(text[1:])):
        raise ValueError(
            f"{shown(text)} is not a short flag with a port. Allowed are "
            f"{', '.join(sorted(SAFE_SHORT_FLAGS))}, and flags like -port and -http-port"
        )
    return text


def _enum(values: tuple[str, ...]) -> WithJsonSchema:
    return WithJsonSchema({"type": "string", "enum": list(values)})


_StackName = Annotated[str, AfterValidator(_read_stack), _enum(_STACKS)]
_RoleName = Annotated[str, AfterValidator(_read_role), _enum(ROLE_NAMES)]
_RestRole = Annotated[str, AfterValidator(_read_rest), _enum(ROLE_NAMES)]
_Variable = Annotated[str, AfterValidator(_read_variable), _enum(_VARIABLES)]
_ProgramName = Annotated[str, AfterValidator(_read_name)]
_Word = Annotated[str, AfterValidator(_read_word)]
_Flag = Annotated[str, AfterValidator(_read_flag)]
_ShortFlag = Annotated[str, AfterValidator(_read_short)]
_Backlog = Annotated[int, Field(strict=True, ge=-1, le=65535)]


class BoundSection(Section):
    """What the process must be as well. Every key that is set must match."""

    exe: Pattern | None = None
    unit: Pattern | None = None
    image: Pattern | None = None
    cgroup: Pattern | None = None

    @model_validator(mode="after")
    def _matches_something(self) -> BoundSection:
        if not self.model_fields_set:
            raise ValueError(f"needs at least one of {', '.join(BoundSection.model_fields)}")
        return self


class PortSection(Section):
    """The role of a listener of the program. The first rule that applies counts."""

    role: _RoleName
    flags: tuple[_Flag, ...] = ()
    short: tuple[_ShortFlag, ...] = ()
    env: tuple[_Variable, ...] = ()
    ports: tuple[PortValue, ...] = ()
    backlog: tuple[_Backlog, ...] = ()

    @model_validator(mode="after")
    def _names_a_port(self) -> PortSection:
        named = self.flags or self.short or self.env or self.ports
        if self.role == Role.API.value and not named:
            raise ValueError("an API needs its port: name it with flags, short, env or ports")
        if not (named or self.backlog):
            raise ValueError("needs at least one of flags, short, env, ports, backlog")
        return self


class ProgramSection(Section):
    """Teaches vllmwall a program: how to know it, and what its ports are for."""

    part: WorkloadName
    stack: _StackName = Stack.CUSTOM.value
    programs: tuple[_ProgramName, ...] = ()
    modules: tuple[_ProgramName, ...] = ()
    titles: tuple[_ProgramName, ...] = ()
    words: tuple[_Word, ...] = ()
    match: BoundSection | None = None
    ports: tuple[PortSection, ...] = ()
    rest: _RestRole | None = None
    why: str = ""

    @model_validator(mode="after")
    def _knows_a_program(self) -> ProgramSection:
        if not (self.programs or self.modules or self.titles):
            raise ValueError("needs at least one of programs, modules, titles")
        return self

    def row(self, place: str) -> Row:
        """As `recognize` takes it. ``place``: where it was written."""
        return row_of(self.model_dump(exclude_none=True), place)
