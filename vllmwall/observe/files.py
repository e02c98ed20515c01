"""Files that processes name and recognition reads: YAML settings and Ray's ports.

Users control their paths and contents. So they are read in a process of their own (`answer_from`),
which ends soon and has the rights of the process that names the file (`vllmwall.linux.bounded`).
Nothing here is called in the daemon but `settings_path` and `ray_directories`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import select
import signal
import stat
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NoReturn

from vllmwall.linux.bounded import NotAllowedError, become, limit
from vllmwall.linux.helper_process import HelperProcess, answer_lines
from vllmwall.model import Process
from vllmwall.recognize.inputs import SETTINGS_KEYS

SECONDS = 1.0
"""The time that one file may take."""
MOST_HUNG = 2
"""A process that reads for one user gives up when so many of his files did not answer."""

_SIZE_LIMIT = 64 * 1024
_VALUE_LIMIT = 1024  # characters of one setting
_ANSWER_LIMIT = 256 * 1024
_MEMORY = 48 << 20
_MOST_FILES = 4096  # entries of a session directory
_MOST_PORTS = 64  # of one kind: one for each node on this host
_MOST_PARTS = 64  # of a list or mapping in a settings file
_PORT = re.compile(r"[0-9]{1,5}")
_READS_SETTINGS = re.compile(r"vllm(?!wall)|sglang")  # ours is TOML
_RAY_PROCESSES = frozenset({"gcs_server", "raylet"})
_RAY_DIRECTORY = re.compile(r"/[^\s:=,]*?/session_[\w.-]+(?=/|$)")
_RAY_PORT_FILE = re.compile(
    r"(gcs_server_port|metrics_agent_port|metrics_export_port|runtime_env_agent_port"
    r"|dashboard_agent_listen_port)_\w+"
)
_YAML = frozenset({"settings", "yaml"})
_CODE = "from vllmwall.observe import files\nfiles.answer_from_input()"


@dataclass(frozen=True)
class Wanted:
    """A file or folder that the process (pid, start time) names, and how to read it: a key of
    `READERS`."""

    pid: int
    start_time: int
    kind: str
    path: str


def settings_path(argv: Sequence[str]) -> str | None:
    """The settings file of a server that reads one; None: it names none."""
    path = config_path(argv)
    return path if path and any(map(_READS_SETTINGS.search, argv)) else None


def config_path(argv: Sequence[str]) -> str | None:
    """The word after the last ``--config``; None: there is none."""
    if "--config" not in argv:
        return None
    position = len(argv) - 1 - list(reversed(argv)).index("--config")
    return argv[position + 1] if position + 1 < len(argv) else None


def ray_directories(process: Process) -> frozenset[str]:
    """The session directories that a process of a Ray node names."""
    if process.mixed_ids or process.comm not in _RAY_PROCESSES:
        return frozenset()
    return frozenset(match for arg in process.started_as for match in _RAY_DIRECTORY.findall(arg))


def start_reading(wanted: Iterable[Wanted]) -> HelperProcess:
    """A process that reads these, one after the other; each of its lines is an `answer_of`.

    Raises HelperError.
    """
    rows = [(one.pid, one.start_time, one.kind, one.path) for one in wanted]
    return HelperProcess(_CODE, given=json.dumps(rows).encode())


def read_now(wanted: Wanted) -> object:
    """Read one and wait for it; None: it may not be read, or does not answer.

    For commands that look for themselves, never for the daemon. Raises HelperError.
    """
    process = start_reading((wanted,))
    process.wait_until_ended()
    [answer] = process.lines() or [None]
    process.kill()
    return answer.get("found") if isinstance(answer, dict) else None


# What follows runs in the process that reads.


def answer_from_input() -> NoReturn:
    """Read what standard input asks for, and end."""
    os.setpriority(os.PRIO_PROCESS, 0, 10)
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")  # killed before others
    answer_lines(_answers([Wanted(*row) for row in json.load(sys.stdin)]))


def _answers(wanted: Sequence[Wanted]) -> Iterator[Mapping[str, object]]:
    hung = 0
    for one in wanted:
        if hung == MOST_HUNG:
            return
        answer = answer_of(one)
        hung += "hung" in answer
        yield answer


def answer_of(wanted: Wanted, seconds: float = SECONDS) -> Mapping[str, object]:
    """Read it in a child that may be given up.

    ``found``: what was read. ``refused``: why it may not be read. ``silent``: why there is no
    answer; then ``hung`` has the pid of a child that cannot be ended, if there is one.
    """
    if wanted.kind in _YAML:
        import yaml  # noqa: F401 the child may have another root, with another yaml
    pipe, out = os.pipe2(os.O_CLOEXEC)
    child = os.fork()
    if child == 0:
        os.close(pipe)
        _read_and_end(wanted, out)
    os.close(out)
    text = _what_comes(pipe, time.monotonic() + seconds)
    os.close(pipe)
    with suppress(OSError):
        os.kill(child, signal.SIGKILL)
    ended = _has_ended(child)
    try:
        found = json.loads(text or b"")
        if isinstance(found, dict) and found.keys() <= {"found", "refused"}:
            return found
    except (ValueError, RecursionError):
        pass
    if text is None:
        why = f"it did not answer within {seconds:g} s"
        return {"silent": why} if ended else {"silent": why, "hung": child}
    return {"silent": "reading it took more than the limits of time or memory"}


def _what_comes(pipe: int, deadline: float) -> bytes | None:
    """All that the child writes until it ends; None: it has not ended by then."""
    poll = select.poll()
    poll.register(pipe, select.POLLIN)
    parts: list[bytes] = []
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        part = os.read(pipe, 1 << 16)
        if not part or sum(map(len, parts)) > _ANSWER_LIMIT:
            return b"".join(parts)
        parts.append(part)
    return None


def _has_ended(child: int) -> bool:
    """Reap a child that was killed. One in the kernel's hands is left to init."""
    for _ in range(20):
        if os.waitpid(child, os.WNOHANG)[0]:
            return True
        time.sleep(0.005)
    return False


def _read_and_end(wanted: Wanted, out: int) -> NoReturn:
    try:
        sink = os.open(os.devnull, os.O_WRONLY)
        for descriptor in (0, 1, 2):
            os.dup2(sink, descriptor)
        limit(cpu_seconds=1, memory=_MEMORY)
        become(wanted.pid, wanted.start_time)
        answer = {"found": READERS[wanted.kind](wanted.path)}
    except (OSError, NotAllowedError) as error:
        answer = {"refused": str(error) if isinstance(error, NotAllowedError) else _reason(error)}
    except BaseException as error:  # of any kind: the file is a user's
        answer = {"refused": f"it cannot be parsed: {type(error).__name__}"}
    with suppress(BaseException):
        text = json.dumps(answer).encode()
        while text:
            text = text[os.write(out, text) :]
    os._exit(0)


def _reason(error: OSError) -> str:
    return errno.errorcode.get(error.errno or 0, "it cannot be read")


def text_of(path: str) -> str:
    """A small regular file. Raises OSError, and NotAllowedError for any other file."""
    # Neither does a FIFO make us wait nor a terminal become ours.
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode):
            raise NotAllowedError("it is no regular file")
        text = file.read(_SIZE_LIMIT + 1)
    if len(text) > _SIZE_LIMIT:
        raise NotAllowedError(f"it is larger than {_SIZE_LIMIT // 1024} KiB")
    return text.decode(errors="replace")


def yaml_of(text: str) -> Mapping[str, object]:
    """The settings in a YAML file, by the names of their flags. Raises anything for odd files."""
    import yaml

    content = yaml.safe_load(text)
    if not isinstance(content, dict):
        raise NotAllowedError("it holds no mapping")
    return {str(key).replace("_", "-"): value for key, value in content.items()}


def known_settings(path: str) -> Mapping[str, str]:
    """The settings that recognition reads."""
    return {
        key: str(value)[:_VALUE_LIMIT]
        for key, value in yaml_of(text_of(path)).items()
        if key in SETTINGS_KEYS and (isinstance(value, str) or _is_short(value))
    }


def _is_short(value: object) -> bool:
    """Python refuses to print an integer of more than 4,300 digits."""
    return isinstance(value, int) and abs(value) < 1 << 64


def all_settings(path: str) -> Mapping[str, object]:
    """All settings, without what is nested deeper than two levels: aliases let a small file
    unfold without end."""
    return {key: _shallow(value) for key, value in yaml_of(text_of(path)).items()}


def _shallow(value: object) -> object:
    if isinstance(value, dict):
        return {str(key): _scalar(part) for key, part in islice(value.items(), _MOST_PARTS)}
    if isinstance(value, list):
        return [_scalar(part) for part in value[:_MOST_PARTS]]
    return _scalar(value)


def _scalar(value: object) -> object:
    return value if isinstance(value, str | bool | int | float) or value is None else "…"


def ray_ports(directory: str) -> Mapping[str, Sequence[int]]:
    """The ports that Ray's node processes wrote into a session directory, by kind of file."""
    ports: dict[str, list[int]] = {}
    with os.scandir(directory) as entries:
        names = sorted(one.name for one in islice(entries, _MOST_FILES))
    for name in names:
        match = _RAY_PORT_FILE.fullmatch(name)
        kept = ports.setdefault(match.group(1), []) if match else []
        if match and len(kept) < _MOST_PORTS:
            text = text_of(f"{directory}/{name}").strip()
            if _PORT.fullmatch(text):
                kept.append(int(text))
    return {kind: found for kind, found in ports.items() if found}


READERS: Mapping[str, Callable[[str], object]] = {
    "settings": known_settings,
    "yaml": all_settings,
    "ray": ray_ports,
}
"""How each kind of file is read."""
