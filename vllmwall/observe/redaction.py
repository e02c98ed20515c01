"""Redaction of a process for a snapshot, by an allow-list of names and formats.

Command lines hold API keys, and may hold anything. So a word is kept only where recognition reads
it, and only if it is a number, an address, a switch, a module, a base name or one of the words
below. Every other word becomes ``<redacted>``, so that the rest keeps its position.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from ipaddress import ip_address

from vllmwall.model import Listener, Node, Process, RaySession
from vllmwall.recognize.commandline import CARRIERS
from vllmwall.recognize.inputs import (
    ENV_KEYS,
    SAFE_FLAGS,
    SAFE_SHORT_FLAGS,
    SETTINGS_KEYS,
    is_kept,
)
from vllmwall.recognize.row_file import table

REDACTED = "<redacted>"

_NUMBER = re.compile(r"-?\d{1,6}")
_HOST_PORT = re.compile(r"([\w.*:\[\]-]*):(\d{1,5})")
_PLAIN = re.compile(r"[A-Za-z0-9_][\w.+-]{0,63}")
_MODULE = re.compile(r"[A-Za-z_][\w.]{0,127}")
_TITLE = re.compile(r"[\w-]*(?:::|-dashboard-)[\w:.-]{0,64}")
_MASTER = re.compile(
    r"gunicorn: (?:master|worker)|granian \w{1,9} [\da-f.:*\[\]]{1,48}:\d{1,5}(?= )"
)
_RAY_SESSION = re.compile(r"session_\d{4}-\d\d-\d\d_[\d_-]+")
_CLUSTER = re.compile(r"-[bBdEhiIOPqRsSuvV]*([mc]?)")
_MULTIPROCESSING = re.compile(r"multiprocessing\.(spawn|forkserver|resource_tracker)\b")
_ENDPOINT = re.compile(r"(?:tcp|ipc|inproc)://[\w.*:\[\]-]*(:\d{1,5})")
_THREAD = re.compile(
    r"(?:pt_|gloo_|TP_|ZMQbg/|async|tokio|worker\.io|server\.poll|grpc|event_engine|gcs_)[\w./-]*"
)
_PACKAGES = ("vllm", "ray", "sglang", "sglang_router", "vllm_router", "lmdeploy", "lmcache")
_OTHER_PACKAGES = ("mooncake", "torch", "accelerate", "dynamo", "swift", "trl")
_PACKAGE_PATH = re.compile(rf"/((?:{'|'.join((*_PACKAGES, *_OTHER_PACKAGES))})/.+\.py)")
_SUBCOMMANDS = frozenset(
    {"serve", "launch", "render", "snapshot", "restore", "run-batch", "preload", "bench", "chat"}
    | {"complete", "start", "api_server", "proxy", "router", "frontend", "server"}
    | {"coordinator", "controller"}
)
_SWITCHES = frozenset({"true", "false", "yes", "no", "on", "off", "spawn", "fork", "localhost"})
_JSON_FLAGS = frozenset({"kv-events-config", "kv-transfer-config", "ec-transfer-config"})
_JSON_PORTS = frozenset({"kv_port", "ec_port"})
_JSON_NAMES = frozenset({"kv_role", "kv_connector"})
_JSON_ENDPOINTS = frozenset({"endpoint", "replay_endpoint"})
_MODELS = frozenset({"model", "model-path"})
_PORT_ARGUMENTS = frozenset({"lmcache_server", "lmcache_v0_server"})


def redacted(node: Node) -> Node:
    """The node without anything that a stranger must not read."""
    return Node(
        {pid: _process(process) for pid, process in node.processes.items()},
        tuple(_listener(one) for one in node.listeners),
        tuple(_session(one) for one in node.ray_sessions),
        node.relays,
    )


def _process(process: Process) -> Process:
    exec_argv = process.exec_argv
    return replace(
        process,
        comm=process.comm if _is_name(process.comm) else REDACTED,
        argv=redacted_argv(process.argv),
        exe=_base_name(process.exe),
        env=redacted_env(process.env),
        threads=_threads(process.threads),
        settings={
            key: _value(key, value)
            for key, value in process.settings.items()
            if key in SETTINGS_KEYS
        },
        exec_argv=None if exec_argv is None else redacted_argv(exec_argv),
    )


def _is_name(text: str) -> bool:
    return bool(_PLAIN.fullmatch(text) or _TITLE.fullmatch(text))


def _base_name(path: str) -> str:
    name = path.rstrip("/").rpartition("/")[2]
    return name if not name or _PLAIN.fullmatch(name.removeprefix(".")) else REDACTED


def _threads(threads: Mapping[str, int]) -> dict[str, int]:
    kept: dict[str, int] = {}
    for name, count in threads.items():
        shown = name if _THREAD.fullmatch(name) else "other"
        kept[shown] = kept.get(shown, 0) + count
    return kept


def _listener(listener: Listener) -> Listener:
    return replace(listener, path=unix_path(listener.path))


def unix_path(path: str) -> str:
    """The base name of a unix path; abstract names stay abstract."""
    if path.startswith("@"):
        return path if _PLAIN.fullmatch(path[1:]) else "@" + REDACTED
    return f".../{_base_name(path)}" if path else ""


def _session(session: RaySession) -> RaySession:
    match = _RAY_SESSION.search(session.directory)
    return replace(session, directory=match.group() if match else REDACTED)


def redacted_env(env: Mapping[str, str]) -> dict[str, str]:
    """The variables that recognition reads, with the values that are allowed."""
    return {key: _short(value) for key, value in env.items() if key in ENV_KEYS}


def redacted_argv(argv: tuple[str, ...]) -> tuple[str, ...]:
    """The command line with the same number of words, of which only the allowed are left."""
    if not argv:
        return ()
    first = argv[0].partition(" ")[0]
    if _TITLE.fullmatch(first):
        return (first, *(REDACTED for _ in argv[1:]))
    if master := _MASTER.match(argv[0]):
        return (master.group(), *(REDACTED for _ in argv[1:]))
    words = _Words()
    kept = [_base_name(argv[0])]
    words.program = kept[0]
    for word in argv[1:]:
        kept.append(words.read(word))
    return tuple(kept)


@dataclass
class _Words:
    """Reads words one by one; what a word may keep depends on the one before it."""

    program: str = ""
    before: str = ""
    has_script: bool = False
    carries: bool = False

    def read(self, word: str) -> str:
        """The word as it may be shown."""
        before, self.before = self.before, ""
        if before in ("-W", "-X"):
            return REDACTED
        if before in ("-m", "-c"):
            self.has_script = True
            self.carries = before == "-m" and word in CARRIERS
            return _module(word) if before == "-m" else _code(word)
        if not self.has_script and self._is_python and word.startswith("-"):
            return self._python_option(word)
        if word.startswith("--"):
            return self._flag(word)
        if before.startswith("-"):
            return _value(before.lstrip("-"), word)
        if word.startswith("-"):
            return self._short_flag(word)
        return self._plain_word(word, before)

    def _short_flag(self, word: str) -> str:
        """``-p``, or ``-port`` and ``-port=8000`` of programs in Go."""
        name, equals, value = word.partition("=")
        if name not in SAFE_SHORT_FLAGS and not is_kept(name[1:]):
            self.before = "-"
            return "-" + REDACTED
        if equals:
            return f"{name}={_value(name[1:], value)}"
        self.before = name
        return name

    @property
    def _is_python(self) -> bool:
        return self.program.startswith(("python", "pypy"))

    def _python_option(self, word: str) -> str:
        self.before = word if word in ("-m", "-c", "-W", "-X") else ""
        if match := _CLUSTER.fullmatch(word):
            self.before = "-" + match.group(1) if match.group(1) else ""
            return word
        return "-" + REDACTED

    def _flag(self, word: str) -> str:
        name, equals, value = word.partition("=")
        plain = name[2:].replace("_", "-")
        if is_kept(plain):
            self.before = "" if equals else "--" + plain
            return f"{name}={_value(plain, value)}" if equals else name
        safe = _full_name(plain.partition(".")[0])
        shown = name if safe else "--" + REDACTED
        if equals:
            return f"{shown}={_value(safe, value) if safe else _session_name(value)}"
        self.before = "--" + (safe + ("." if "." in plain else "") if safe else "")
        return shown

    def _plain_word(self, word: str, before: str) -> str:
        if self._is_python and not self.has_script:
            self.has_script = True
            self.program = word.rpartition("/")[2]
            self.carries = self.program in CARRIERS
            return _script(word)
        if self.carries:  # a debugger or profiler: the program that it runs
            self.carries = word == "run"
            return word if word == "run" else _script(word)
        if word in _SUBCOMMANDS or word in table().subcommands:
            self.before = word
            return word
        if before in ("serve", "api_server"):
            return _base_name(word)
        if self.program in _PORT_ARGUMENTS:
            return _short(word)
        return _base_name(word) if word.endswith(".py") else REDACTED


def _full_name(name: str) -> str:
    """The safe flag that this is, or is the only beginning of; empty: none."""
    if name in SAFE_FLAGS or f"--{name}" in table().subcommands:
        return name
    if name.removeprefix("no-") in SAFE_FLAGS:
        return name
    fitting = [one for one in SAFE_FLAGS if one.startswith(name)]
    return fitting[0] if len(fitting) == 1 else ""


def _module(word: str) -> str:
    return word if _MODULE.fullmatch(word) else REDACTED


def _code(word: str) -> str:
    match = _MULTIPROCESSING.search(word)
    return f"from multiprocessing.{match.group(1)} import main" if match else REDACTED


def _script(word: str) -> str:
    """The path inside a package that we know, else the base name."""
    match = _PACKAGE_PATH.search(word)
    return "/" + match.group(1) if match else _base_name(word)


def _value(name: str, value: str) -> str:
    """A flag's value in an allowed shape."""
    if name in _JSON_FLAGS:
        return _json(value)
    if name.rstrip(".") in _JSON_FLAGS:
        return _endpoint(value)
    if name == "uds":
        return unix_path(value)
    if name in _MODELS:
        return _base_name(value)
    if is_kept(name) or f"-{name}" in SAFE_SHORT_FLAGS or name.startswith("no-"):
        return _short(value)
    return _session_name(value)


def _short(value: str) -> str:
    """A number, a switch, or an address with or without a port. Of a host name only the port."""
    if not value or _NUMBER.fullmatch(value) or value.lower() in _SWITCHES or _is_address(value):
        return value
    if match := _HOST_PORT.fullmatch(value):
        host, port = match.groups()
        shown = host in ("", "*", "localhost") or _is_address(host)
        return f"{host if shown else REDACTED}:{port}"
    return _session_name(value)


def _is_address(text: str) -> bool:
    try:
        ip_address(text.strip("[]"))
    except ValueError:
        return False
    return True


def _session_name(value: str) -> str:
    match = _RAY_SESSION.search(value)
    return match.group() if match else REDACTED


def _json(value: str) -> str:
    try:
        content = json.loads(value)
    except (ValueError, RecursionError):
        return REDACTED
    if not isinstance(content, dict):
        return REDACTED
    kept: dict[str, str] = {}
    for key, part in content.items():
        if key in _JSON_PORTS:
            kept[key] = _short(str(part))
        if key in _JSON_NAMES and _PLAIN.fullmatch(str(part)):
            kept[key] = str(part)
        if key in _JSON_ENDPOINTS:
            kept[key] = _endpoint(str(part))
    return json.dumps(kept)


def _endpoint(value: str) -> str:
    """The port of an endpoint; also a bare port."""
    match = _ENDPOINT.fullmatch(value)
    return f"tcp://*{match.group(1)}" if match else _short(value)
