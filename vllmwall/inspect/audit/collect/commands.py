"""A process's command line, settings file and environment, as far as checks read them.

Values of secrets are dropped here, word by word, before anything else sees them. What cannot
be read whole says so: nothing may be concluded from what is missing in it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from itertools import pairwise

from vllmwall.inspect.audit.rules import knobs
from vllmwall.inspect.audit.types import SET, CommandLine, Environment
from vllmwall.linux.helper_process import HelperError
from vllmwall.model import Process, Stack
from vllmwall.observe.files import Wanted, config_path, read_now
from vllmwall.observe.proc import read
from vllmwall.recognize.commandline import command_of, read_flags

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.%()-]*")
_TITLE = re.compile(r"[^\s/]*::|ray-dashboard-")
_ARGS_JSON = re.compile(
    r'"(api_key|hf_token|seed_token|watermark_config)"\s*:\s*(?!\s|null|\[\s*\]|"")'
)


def command_line(process: Process, stack: Stack) -> CommandLine:
    """The flags of a server that was told by its command line to be one."""
    known = knobs().flags_of(stack)
    args, found = without_secrets(command_of(process).args, known)
    settings, is_whole = _settings(process, args, known)
    flags = read_flags(args, known, settings=settings)
    return CommandLine(flags, is_whole, tuple(found), readable=True)


def is_title(process: Process) -> bool:
    """The command line is gone, or overwritten by a name that the process gave itself."""
    argv = process.started_as
    return not argv or bool(_TITLE.match(argv[0])) or (len(argv) == 1 and " " in argv[0])


def secrets_of(process: Process, stack: Stack) -> tuple[str, ...]:
    """The flags of any process's command line that hold a secret in clear."""
    args = command_of(process).args
    found = without_secrets(args, knobs().flags_of(stack) | set(knobs().secret.flags))[1]
    for name, word in pairwise(args):
        if name == "--args-json" and (match := _ARGS_JSON.search(word)):
            found.append(f"--args-json ({match.group(1)})")
    return tuple(dict.fromkeys(found))


def without_secrets(
    args: tuple[str, ...], known: Collection[str]
) -> tuple[tuple[str, ...], list[str]]:
    """The words with every secret replaced, and the flags that held one."""
    kept: list[str] = []
    found: list[str] = []
    flag = ""
    for word in args:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            flag = _secret_flag(name, known)
            kept.append(f"{name}={SET}" if flag and equals else word)
            if flag and value:
                found.append(f"--{flag}")
        elif flag and not word.startswith("-"):
            kept.append(SET)
            found.append(f"--{flag}")
        elif flag:  # a key may begin with a dash where it is the flag's only word
            kept.append(SET)
        else:
            kept.append(word)
    return tuple(kept), list(dict.fromkeys(found))


def _secret_flag(name: str, known: Collection[str]) -> str:
    flags = read_flags((name, SET), known)
    for secret in knobs().secret.flags:
        if flags.text(secret) == SET or flags.object(secret):  # --watermark-config.key too
            return secret
    return ""


def _settings(
    process: Process, args: tuple[str, ...], known: Collection[str]
) -> tuple[Mapping[str, str], bool]:
    """What ``--config FILE`` says, and whether that could be read.

    ``--config=FILE`` is ignored by vLLM (seen in 0.32).
    """
    if "--config" not in args:
        return {}, True
    path = config_path(args)
    if path is None:
        return {}, False
    try:
        content = read_now(Wanted(process.pid, process.start_time, "yaml", path))
    except HelperError:
        return {}, False
    return (dict(_values(content, known)), True) if isinstance(content, dict) else ({}, False)


def _values(content: Mapping[str, object], known: Collection[str]) -> Iterator[tuple[str, str]]:
    for name, value in content.items():
        if name not in known or value is None:
            continue
        if name in knobs().secret.flags:
            yield name, SET
        else:
            yield name, value if isinstance(value, str) else json.dumps(value)


def environment(pid: int) -> Environment:
    """The variables that checks read, as they were at exec.

    setproctitle overwrites the memory they lie in, a part of it or all: what is then left has
    holes, of zeroes or of the title. An environment that is empty may have been wiped.
    """
    raw = read(f"/proc/{pid}/environ")
    names = knobs().variable_names
    secret = frozenset(knobs().secret.variables)
    values: dict[str, str] = {}
    for part in raw.split(b"\0"):
        name, equals, value = part.decode(errors="replace").partition("=")
        if equals and name in names:
            values[name] = SET if name in secret and value else value
    return Environment(values, _is_whole(raw))


def _is_whole(raw: bytes) -> bool:
    if not raw:
        return False
    parts = raw.decode(errors="replace").removesuffix("\0").split("\0")
    return all(_NAME.fullmatch(part.partition("=")[0]) and "=" in part for part in parts)
