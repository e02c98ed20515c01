"""A command line as evidence: which program it runs, and the flags that we know of it.

Parses words as Python and argparse do, but never fails: it ignores what it cannot parse. Users
write command lines, so a result is only a hint about the process itself.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TypeVar

from vllmwall.model import Process

_Value = TypeVar("_Value")

_PYTHONS = ("python", "pypy")
_LOADER = "ld-linux"
# a cluster of Python's options: ``-u``, ``-um``, ``-Xdev``; the last may take a value
_CLUSTER = re.compile(r"-([bBdEhiIOPqRsSuvVxt?]*)([mcWXQ]?)(.*)", re.DOTALL)
_LONG_WITH_VALUE = frozenset({"--check-hash-based-pycs"})
# Modules and scripts that run another program inside the same process, and their options that
# take a value.
CARRIERS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "debugpy": frozenset({"--listen", "--connect", "--configure", "--log-to"}),
        "debugpy.adapter": frozenset(),
        "pydevd": frozenset({"--port", "--client", "--file"}),
        "cProfile": frozenset({"-o", "-s"}),
        "profile": frozenset({"-o", "-s"}),
        "pdb": frozenset({"-c"}),
        "trace": frozenset({"-C", "-f", "-F"}),
        "coverage": frozenset({"--rcfile", "--source", "--data-file", "--omit", "--include"}),
        "viztracer": frozenset({"-o", "--output_file"}),
        "memray": frozenset({"-o", "--output", "-p"}),
        "scalene": frozenset({"--outfile", "--cli"}),
        "kernprof": frozenset({"-o", "--outfile"}),
        "line_profiler": frozenset({"-o"}),
        "pyinstrument": frozenset({"-o", "-r"}),
        "opentelemetry.instrumentation.auto_instrumentation": frozenset(),
    }
)
_CARRIED_BY_SUBCOMMAND = frozenset({"run"})
_WRAPPED = re.compile(r"\.?(.+?)(?:-wrapped_*|\.real|\.bin)")
_NO = frozenset({"false", "no", "0", "off"})
_ATTACHED = tuple("0123456789:[*")  # ``-p8000``, ``-b:8000``


@dataclass(frozen=True)
class Command:
    """What a command line runs.

    ``binary`` is the base name of the executed file. For Python, one of ``module`` (``-m``),
    ``script`` (a path) or ``code`` (``-c``) is set. ``args`` are the words that follow.
    ``modules`` are the names that the module may have: of a file, every tail of its path.
    """

    binary: str = ""
    module: str = ""
    script: str = ""
    code: str = ""
    args: tuple[str, ...] = ()
    modules: tuple[str, ...] = field(default=(), compare=False, repr=False)

    @property
    def is_python(self) -> bool:
        """A Python interpreter is the executed file."""
        return self.binary.startswith(_PYTHONS)

    @property
    def name(self) -> str:
        """The base name of the script or executed file, without what a wrapper added to it
        (``.vllm-wrapped``); empty for ``-m`` and ``-c``."""
        name = self.script.rpartition("/")[2] if self.script else self.binary
        if self.is_python and not self.script:
            return ""
        match = _WRAPPED.fullmatch(name)
        return match.group(1) if match else name

    @property
    def words(self) -> tuple[str, ...]:
        """The words before the first flag: the subcommand and what directly follows it."""
        for position, word in enumerate(self.args):
            if word.startswith("-"):
                return self.args[:position]
        return self.args

    def runs(self, module: str) -> bool:
        """``-m module``, or that module's file given as a script."""
        return module in self.modules

    def pick(self, table: Mapping[str, _Value]) -> _Value | None:
        """The entry of a table for the module that this runs; None: there is none."""
        for name in self.modules:
            if name in table:
                return table[name]
        return None


def read_command(argv: tuple[str, ...], exe: str = "") -> Command:
    """Split a command line into the program and its arguments.

    ``exe`` is the executed file: what it says outweighs ``argv[0]``, which the starter chooses
    (``exec -a NAME``). Programs that run another in the same process (debugpy) are skipped.
    """
    if not argv:
        return Command()
    binary = argv[0].rpartition("/")[2]
    if binary.startswith(_LOADER) and len(argv) > 1:
        argv, binary = argv[1:], argv[1].rpartition("/")[2]
    executed = exe.rpartition("/")[2]
    if executed.startswith(_PYTHONS) and not binary.startswith(_PYTHONS) and len(argv) > 1:
        binary = executed
    if not binary.startswith(_PYTHONS):
        return Command(binary=binary, args=argv[1:])
    return _carried(_read_python(binary, argv[1:]))


def command_of(process: Process) -> Command:
    """What a process runs: its command line at exec where known."""
    return read_command(process.started_as, process.exe)


def _carried(command: Command) -> Command:
    """What a debugger or profiler runs; the command itself where it runs nothing."""
    for _ in range(2):
        options = CARRIERS.get(command.module or command.name)
        if options is None:
            break
        inner = _read_python(command.binary, _after_options(command.args, options))
        if not (inner.module or inner.script):
            break
        command = inner
    return command


def _after_options(words: tuple[str, ...], with_value: frozenset[str]) -> tuple[str, ...]:
    position = 0
    while position < len(words):
        word = words[position]
        if word in _CARRIED_BY_SUBCOMMAND:
            position += 1
        elif word in ("-m", "-c") and word not in with_value:
            break
        elif word.startswith("-"):
            position += 2 if word in with_value else 1
        else:
            break
    return words[position:]


def _read_python(binary: str, words: tuple[str, ...]) -> Command:
    position = 0
    while position < len(words) and words[position].startswith("-"):
        option = words[position]
        if option == "-":
            return Command(binary=binary, args=words[position + 1 :])
        match = None if option.startswith("--") else _CLUSTER.fullmatch(option)
        taker, value = match.group(2, 3) if match else ("", "")
        if taker in ("m", "c"):
            return _module_or_code(binary, taker, value, words[position + 1 :])
        takes_next = option in _LONG_WITH_VALUE or (taker != "" and not value)
        position += 2 if takes_next else 1
    if position >= len(words):
        return Command(binary=binary)
    script, rest = words[position], words[position + 1 :]
    return Command(binary=binary, script=script, args=rest, modules=_module_names(script))


def _module_names(script: str) -> tuple[str, ...]:
    if "/" not in script or not script.endswith(".py"):
        return ()
    parts = script.removesuffix(".py").removesuffix("/__main__").split("/")
    return tuple(".".join(parts[start:]) for start in range(1, len(parts)))


def _module_or_code(binary: str, kind: str, value: str, rest: tuple[str, ...]) -> Command:
    if not value:
        value, rest = (rest[0], rest[1:]) if rest else ("", ())
    if kind == "m":
        names = (value.removesuffix(".__main__"),)
        return Command(binary=binary, module=value, args=rest, modules=names)
    return Command(binary=binary, code=value, args=rest)


def whole_number(text: str) -> int | None:
    """A number of up to nine plain digits; None for anything else, however digit-like."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 10 else None


class Flags:
    """The flags of a command line that a stack knows; the last one of a name wins."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self._values = values

    def text(self, name: str) -> str | None:
        """The value as written; None when the flag is not there."""
        return self._values.get(name)

    def number(self, name: str) -> int | None:
        """The value as a whole number; None when it is not there or not one."""
        return whole_number(self._values.get(name, "").strip())

    def is_on(self, name: str) -> bool:
        """The switch is on: it is there, and not followed by false, no, 0 or off."""
        value = self._values.get(name)
        return value is not None and value.lower() not in _NO

    def object(self, name: str) -> Mapping[str, object]:
        """The JSON object of a flag, with ``--name.key value`` laid over it."""
        found: dict[str, object] = {}
        try:
            value = json.loads(self._values.get(name, "{}"))
        except (ValueError, RecursionError):
            value = {}
        if isinstance(value, dict):
            found.update(value)
        dotted = name + "."
        for key, part in self._values.items():
            if key.startswith(dotted):
                found[key.removeprefix(dotted)] = part
        return found


def read_flags(
    args: tuple[str, ...],
    known: Iterable[str],
    short: Mapping[str, str] | None = None,
    settings: Mapping[str, str] | None = None,
) -> Flags:
    """Read those flags of ``args`` that are ``known``; ``settings`` of a file come below them.

    Underscores are dashes, ``--name=value`` and ``--name value`` are the same, and so is any
    beginning of a name that fits no other known one: argparse refuses ambiguous beginnings,
    so a running process has none. ``short`` maps ``-x`` to names.
    """
    names = frozenset(known)
    values = {key: value for key, value in (settings or {}).items() if key in names}
    short = short or {}
    for word, following in _pairs(args):
        attached = word not in short and word[:2] in short and word[2:3] in _ATTACHED
        value = word[2:] if attached else following
        name, negated = _full_name(word[:2] if attached else word, names, short)
        if name:
            values[name] = "false" if negated else value
    return Flags(values)


def _pairs(args: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for position, word in enumerate(args):
        if word == "--":
            return
        if not _is_flag(word):
            continue
        name, equals, value = word.partition("=")
        following = args[position + 1] if position + 1 < len(args) else ""
        yield name, value if equals else ("" if _is_flag(following) else following)


def _is_flag(word: str) -> bool:
    return word.startswith("-") and word[1:2] not in "0123456789."


def _full_name(
    word: str, names: frozenset[str], short: Mapping[str, str]
) -> tuple[str | None, bool]:
    if not word.startswith("--"):
        return short.get(word), False
    name, dot, key = word[2:].partition(".")
    name = name.replace("_", "-")
    if name + dot + key in names:
        return name + dot + key, False  # `--server.port` is one name
    if name.startswith("no-") and name[3:] in names:
        return name[3:], True
    full = _complete(name, names)
    return (full + dot + key if full else None), False


def _complete(name: str, names: frozenset[str]) -> str | None:
    if name in names:
        return name
    fitting = [full for full in names if full.startswith(name)]
    return fitting[0] if len(fitting) == 1 else None
