"""Files that processes name and recognition reads: YAML settings and Ray's ports.

Users control their paths and contents, and we read them as root. So only small regular files are
read, without waiting, and only those that the process itself could have read. Only the keys in
`vllmwall.recognize.inputs` leave this module.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from vllmwall.model import Process, RaySession
from vllmwall.recognize.inputs import SETTINGS_KEYS

_SIZE_LIMIT = 64 * 1024
_MOST_ALIASES = 16
_PORT = re.compile(r"[0-9]{1,5}")
_READS_SETTINGS = re.compile(r"vllm(?!wall)|sglang")  # ours is TOML
_RAY_PROCESSES = frozenset({"gcs_server", "raylet"})
_RAY_DIRECTORY = re.compile(r"/[^\s:=,]*?/session_[\w.-]+(?=/|$)")
_RAY_PORT_FILE = re.compile(
    r"(gcs_server_port|metrics_agent_port|metrics_export_port|runtime_env_agent_port"
    r"|dashboard_agent_listen_port)_\w+"
)


def settings_of(pid: int, argv: Sequence[str]) -> Mapping[str, str]:
    """The settings that ``--config FILE`` brings; empty when there is none or it is unreadable."""
    path = _settings_path(argv)
    if path is None:
        return {}
    return _known_keys(read_as(pid, path))


def _settings_path(argv: Sequence[str]) -> str | None:
    return config_path(argv) if any(map(_READS_SETTINGS.search, argv)) else None


def config_path(argv: Sequence[str]) -> str | None:
    """The word after the last ``--config``; None: there is none."""
    if "--config" not in argv:
        return None
    position = len(argv) - 1 - list(reversed(argv)).index("--config")
    return argv[position + 1] if position + 1 < len(argv) else None


def yaml_of(text: str) -> Mapping[str, object] | None:
    """The settings in a YAML file, by the names of their flags; None: it holds no mapping."""
    import yaml

    try:
        content = yaml.safe_load(text)
    except Exception:  # PyYAML also raises KeyError, IndexError, AttributeError for odd values
        return None
    if not isinstance(content, dict):
        return None
    return {str(key).replace("_", "-"): value for key, value in content.items()}


def _known_keys(text: str) -> Mapping[str, str]:
    # Nested merges of 600 bytes take PyYAML a minute, for which the daemon's loop must not wait.
    settings = {} if text.count("*") > _MOST_ALIASES else yaml_of(text) or {}
    return {
        key: str(value)
        for key, value in settings.items()
        if key in SETTINGS_KEYS and (isinstance(value, str) or _is_short(value))
    }


def _is_short(value: object) -> bool:
    """Python refuses to print an integer of more than 4,300 digits."""
    return isinstance(value, int) and abs(value) < 1 << 64


def ray_sessions(processes: Iterable[Process]) -> tuple[RaySession, ...]:
    """The ports that Ray's node processes wrote into their session directories."""
    sessions: dict[str, RaySession] = {}
    for process in processes:
        if process.comm in _RAY_PROCESSES:
            for directory in _ray_directories(process):
                sessions.setdefault(directory, _ray_session(process.pid, directory))
    return tuple(sessions[directory] for directory in sorted(sessions))


def _ray_directories(process: Process) -> Iterable[str]:
    return {match for arg in process.started_as for match in _RAY_DIRECTORY.findall(arg)}


def _ray_session(pid: int, directory: str) -> RaySession:
    ports: dict[str, tuple[int, ...]] = {}
    try:
        names = sorted(os.listdir(_inside(pid, directory)))  # noqa: PTH208
    except OSError:
        names = []
    for name in names:
        if match := _RAY_PORT_FILE.fullmatch(name):
            text = read_as(pid, f"{directory}/{name}").strip()
            if _PORT.fullmatch(text):
                kind = match.group(1)
                ports[kind] = (*ports.get(kind, ()), int(text))
    return RaySession(directory, ports)


def read_as(pid: int, path: str) -> str:
    """A small regular file as the process ``pid`` names it; empty when it may not be read.

    Symbolic links could lead root to what the process itself may not see, so the file must
    belong to the process's user or be readable by all.
    """
    try:
        owner = Path(f"/proc/{pid}").stat().st_uid
        place = os.open(_inside(pid, path), os.O_PATH | os.O_CLOEXEC)
    except (OSError, ValueError):
        return ""
    try:
        found = os.fstat(place)
        readable = owner in (0, found.st_uid) or found.st_mode & stat.S_IROTH
        if not stat.S_ISREG(found.st_mode) or not readable or found.st_size > _SIZE_LIMIT:
            return ""
        # Opened only now that it is known to be a plain file: opening a device can act on it.
        with Path(f"/proc/self/fd/{place}").open("rb") as file:
            return file.read(_SIZE_LIMIT).decode(errors="replace")
    except OSError:
        return ""
    finally:
        os.close(place)


def _inside(pid: int, path: str) -> str:
    """``path`` as the process sees it: its root, its working directory."""
    if not path.startswith("/"):
        return f"/proc/{pid}/cwd/{path}"
    return f"/proc/{pid}/root{path}"
