"""Software known by rows of data: ours in `stacks.toml`, the operator's in the configuration.

A row says how to know a process and what its listeners are for. It needs no code, claims only what
it names, and is consulted before the rules of a stack. The operator's rows come first.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import translate
from functools import cache, cached_property

from vllmwall.model import Label, Process, Proto, Role, Stack
from vllmwall.recognize.api import is_certain
from vllmwall.recognize.commandline import Command, Flags, read_flags, whole_number
from vllmwall.recognize.definitions import Match
from vllmwall.recognize.fingerprints import asked, library_label
from vllmwall.recognize.names import script_name, short_name
from vllmwall.recognize.stack_rules import (
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)

_PORT = re.compile(r"(?:^|[:=])([0-9]{1,5})(?=$|[:/,])")
_SEPARATORS = re.compile(r"[-_.*]")
_WILD = re.compile(r"[*?\[\]]")
_FIRST_WORDS = 16
_CERTAIN = 0.9
_MODEL_FLAGS = ("model", "model-path", "model-id", "model-name", "model-tag", "served-model-name")


@dataclass(frozen=True)
class Names:
    """How a program is known: by its name, its module or its title. All are globs."""

    programs: tuple[str, ...] = ()
    modules: tuple[str, ...] = ()
    titles: tuple[str, ...] = ()

    def fit(self, candidate: Candidate) -> bool:
        """Whether this process is that program."""
        command = candidate.command
        if self.titled(candidate):
            return True
        if self.modules and any(map(_one_of(self.modules).match, command.modules)):
            return True
        return bool(self.programs and _one_of(self.programs).match(command.name))

    def titled(self, candidate: Candidate) -> bool:
        """Its title says so: setproctitle took the command line."""
        return bool(self.titles and _one_of(self.titles).match(candidate.process.title))

    @staticmethod
    def union(all_: Iterable[Names]) -> Names:
        """Names that fit what one of them fits."""
        every = tuple(all_)
        return Names(
            tuple(name for one in every for name in one.programs),
            tuple(name for one in every for name in one.modules),
            tuple(name for one in every for name in one.titles),
        )


@cache
def _one_of(globs: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(translate, globs)))


@dataclass(frozen=True)
class PortRule:
    """The role of listeners: named by a flag, a variable or a default port, or by their shape."""

    role: Role
    flags: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    backlog: tuple[int, ...] = ()
    wide: bool | None = None
    shared: bool = False

    def evidence(self, context: ListenerContext, command: Command) -> tuple[str, str] | None:
        """Why it applies to this listener; None: it does not."""
        listener = context.listener
        if self.backlog and not any(asked(listener, one) for one in self.backlog):
            return None
        if self.wide is not None and self.wide is not listener.is_wildcard:
            return None
        if not (self.flags or self.short or self.env or self.ports):
            return ("address", listener.where) if self.wide is not None else ("backlog", "fits")
        named = ports_named(context.process.env, command, self.flags, self.short, self.env)
        if listener.port in named:
            return named[listener.port], f"port {listener.port}"
        free = str(listener.port) not in command.args  # or it is the place of something else
        if not named and free and listener.port in self.ports:
            return "default-port", f"port {listener.port}"
        if self.shared and len(context.owners) > 1:
            return "order", "opened by one process, served by others"
        return None


@dataclass(frozen=True)
class Row:
    """One kind of program: see `stacks.toml`, which explains the fields.

    ``match`` binds a row of the operator to what others cannot choose, like a unit. ``place`` is
    where the operator wrote it, ``FILE:LINE``; empty: it is ours.
    """

    stack: Stack
    part: str
    names: Names
    words: frozenset[str] = frozenset()
    ports: tuple[PortRule, ...] = ()
    rest: Role | None = None
    beside: bool = False
    unless: frozenset[str] = frozenset()
    why: str = ""
    source: str = ""
    match: Match | None = None
    place: str = ""

    def claims(self, candidate: Candidate) -> bool:
        """Whether this process is the program of the row."""
        if not self.names.fit(candidate):
            return False
        args = candidate.command.args
        if self.unless and self._is_its_own(candidate):
            return False
        if self.match is not None and not self.match.fits(candidate.process):
            return False
        first = next((word for word in args if not word.startswith("-")), "")
        return (
            not self.words
            or first in self.words
            or any(word.partition("=")[0] in self.words for word in args if word.startswith("-"))
        )

    def _is_its_own(self, candidate: Candidate) -> bool:
        flags = (word.lstrip("-").partition("=")[0] for word in candidate.command.args)
        return not self.unless.isdisjoint((*flags, *candidate.process.env))

    def label(self, context: ListenerContext, pid: int) -> Label | None:
        """The role of a listener that process ``pid`` holds; None: the row does not say."""
        if context.listener.proto is not Proto.TCP:
            return None
        command = context.tree.candidate(pid).command
        fingerprint = library_label(context)
        for rule in self.ports:
            if (evidence := rule.evidence(context, command)) is None:
                continue
            if rule.role is Role.API and fingerprint and _speaks_against(fingerprint):
                return fingerprint
            return label(rule.role, _CERTAIN, evidence, ("program", self._reason))
        if fingerprint is not None:
            return fingerprint
        return label(self.rest, 0.8, ("program", self._reason)) if self.rest else None

    @property
    def has_api(self) -> bool:
        """It serves clients itself: a server that it starts is its own."""
        return any(rule.role is Role.API for rule in self.ports)

    @property
    def _reason(self) -> str:
        told = f"{self.stack.value} {self.part}" + (f": {self.why}" if self.why else "")
        return told + (f" (by {self.place})" if self.place else "")


def _speaks_against(fingerprint: Label) -> bool:
    """No API's library opened it. A queue of 100 is asyncio's as well as ZMQ's."""
    return fingerprint.role is not Role.ZMQ and is_certain(fingerprint)


@dataclass(frozen=True)
class WebServer:
    """A web server that a command line shows, and where it names its port. ``default``: where it
    listens unasked; 0: nowhere."""

    names: Names
    default: int
    flags: tuple[str, ...] = ()
    short: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


@dataclass(frozen=True)
class Table:
    """All rows, in the order in which they are asked."""

    programs: tuple[Row, ...]
    web: tuple[WebServer, ...] = ()
    companions: tuple[Names, ...] = ()
    stores: tuple[Names, ...] = ()
    _by_part: dict[tuple[Stack, str], Row] = field(default_factory=dict, init=False, compare=False)
    _any: dict[str, Names] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        self._by_part.update({(one.stack, one.part): one for one in self.programs})
        self._any["programs"] = Names.union(one.names for one in self.programs)
        self._any["web"] = Names.union(one.names for one in self.web)
        self._any["companions"] = Names.union(self.companions)
        self._any["stores"] = Names.union(self.stores)

    def claim(self, candidate: Candidate) -> Claim | None:
        """The claim of the first row that knows the process."""
        if not self._any["programs"].fit(candidate):
            return None
        for row in self.programs:
            if row.claims(candidate):
                return Claim(row.stack, row.part, launched=True, serves=row.has_api)
        return None

    def row(self, claim: Claim | None) -> Row | None:
        """The row behind a claim; None: it is no row's."""
        return self._by_part.get((claim.stack, claim.part)) if claim else None

    def label(self, context: ListenerContext) -> Label | None:
        """The role by the rows of a listener's owners; None: they do not say."""
        for pid in context.owners:
            row = self.row(context.tree.claims.get(pid))
            if row and (found := row.label(context, pid)) is not None:
                return found
        return None

    def web_server(self, candidate: Candidate) -> WebServer | None:
        """The web server that this process is by its command line or title."""
        if not self._any["web"].fit(candidate):
            return None
        return next((one for one in self.web if one.names.fit(candidate)), None)

    def is_companion(self, candidate: Candidate) -> bool:
        """A program that people start beside a job, and that is no part of it."""
        return self._any["companions"].fit(candidate)

    def is_store(self, candidate: Candidate) -> bool:
        """A database, queue or debugger: a flag names its port, and that is no web server's."""
        return self._any["stores"].fit(candidate)

    @cached_property
    def subcommands(self) -> frozenset[str]:
        """The words after a program's name that decide which row knows it."""
        return frozenset(word for row in self.programs for word in row.words)

    @cached_property
    def words(self) -> frozenset[str]:
        """The first parts of the names of our programs: a cheap test reads them."""
        names = (one.names for one in self.programs if not one.place)
        found = (_SEPARATORS.split(word)[0] for one in names for word in one.programs + one.modules)
        return frozenset(found) - {""}

    def may_know(self, process: Process) -> bool:
        """A cheap test for the names that `words` cannot find: the operator's."""
        if self._hints is None:
            return False
        seen = (process.comm, *process.argv[:1], *process.started_as[:_FIRST_WORDS])
        return self._hints.search(" ".join(seen).replace("/", ".")) is not None

    @cached_property
    def _hints(self) -> re.Pattern[str] | None:
        """The longest plain part of each of the operator's names."""
        names = Names.union(one.names for one in self.programs if one.place)
        globs = names.programs + names.modules + names.titles
        return re.compile("|".join(map(_plainest, globs))) if globs else None


def _plainest(glob: str) -> str:
    return re.escape(max(_WILD.split(glob), key=len))


def ports_named(
    variables: Mapping[str, str],
    command: Command,
    flags: Sequence[str],
    short: Sequence[str] = (),
    env: Sequence[str] = (),
) -> dict[int, str]:
    """The ports that flags (``N`` or ``HOST:N``) name, else variables, and how they are known."""
    read = read_flags(command.args, flags, {word: word for word in short})
    for kind, texts in (
        ("flag", [read.text(name) for name in (*flags, *short)]),
        ("environment", [variables.get(name) for name in env]),
    ):
        found = {port: kind for text in texts for port in ports_in(text or "")}
        if found:
            return found
    return {}


def ports_in(text: str) -> tuple[int, ...]:
    """The port of ``8000``, ``0.0.0.0:8000``, ``[::]:8000`` or ``tcp:port=8000``."""
    numbers = (whole_number(match) for match in _PORT.findall(text))
    return tuple(one for one in numbers if one)


def name_of(tree: WorkloadTree) -> str:
    """The model, the script, or the program."""
    command = tree.candidate(tree.root).command
    flags: Flags = read_flags(command.args, _MODEL_FLAGS)
    model = next((text for name in _MODEL_FLAGS if (text := flags.text(name))), "")
    fallback = short_name(command.name, tree.claims[tree.root].stack.value)
    return short_name(model, "") or script_name((command.script,), fallback)


def _label_listener(context: ListenerContext) -> Label:
    """A listener that no row explains."""
    return (None if context.is_unix else library_label(context)) or unknown(context)


ROWS = StackRules(Stack.CUSTOM, lambda _: None, _label_listener, name_of)
"""The rules of all stacks that only rows describe."""
