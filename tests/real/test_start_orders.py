"""One answer: real servers, seen from their first moment, by daemons that come later, and upgraded.

Each server starts once, under a daemon. Then daemons end and start around it: killed, with a file
of another version, and without any memory and any wall, as one that comes after the server. What a
peer and a stranger get must be the same from every one of them.
"""

from __future__ import annotations

import shutil
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import gunicorn
import pytest

from tests.support.guarded import Guarded
from tests.support.lab import Lab
from tests.support.waiting import eventually
from tests.workloads.listening import listeners_of, try_all
from tests.workloads.starting import ROOT, TORCH, Job, start, start_stand_in
from vllmwall.engine.saved_births import FILE_NAME

PATIENCE = 120.0  # seconds; an import of torch alone takes some on a small machine
API, STORE, METRICS = 9000, 29600, 29000
PUBLIC, PEERS = ({"open"}, {"open"}), ({"open"}, {"timeout"})  # to the peer, to the stranger
PYTHON = str(TORCH / "python")
ROUTERS = ROOT / ".cache/routers/bin"
_SCRIPTS = ROOT / "tests/workloads"
_SERVERS = Path(gunicorn.__file__).parents[1]  # uvicorn, hypercorn and granian too
_PYTHONPATH = f"{_SCRIPTS}:{_SERVERS}"
_ON = ("--host", "0.0.0.0", "--port", str(API))


@dataclass(frozen=True)
class Server:
    """A server and what is expected: by port, else of the ports that nobody chose."""

    argv: tuple[str, ...]
    expected: dict[int, tuple[set[str], set[str]]] = field(
        default_factory=lambda: {API: PUBLIC, STORE: PEERS}
    )
    at_least: int = 3
    """Listeners that other hosts could reach."""


def module(*words: str) -> Server:
    """A web server of Python around the app."""
    return Server((PYTHON, "-m", *words))


def script(*words: str, title: str = "") -> Server:
    """The app as a script of its own: a rank, which is not proven to have an API."""
    titled = ("--title", title) if title else ()
    argv = (*words, str(_SCRIPTS / "rank_app.py"), "--port", str(API), *titled)
    return Server(argv, {API: PEERS} if "torchrun" in words[0] else {API: PEERS, STORE: PEERS})


def router(name: str, *words: str) -> Server:
    """A router in Rust, under the title that it gives itself."""
    argv = (str(ROUTERS / name), *words, *_ON, "--prometheus-host", "0.0.0.0")
    return Server(argv, {API: PUBLIC, METRICS: PEERS}, 2)


SERVERS = {
    "uvicorn": module("uvicorn", "rank_app:app", *_ON),
    "gunicorn": module(
        "gunicorn", "rank_app:app", "-b", f"0.0.0.0:{API}", "-k", "uvicorn.workers.UvicornWorker"
    ),
    "hypercorn": module("hypercorn", "rank_app:app", "-b", f"0.0.0.0:{API}"),
    "granian": module("granian", "--interface", "asgi", *_ON, "rank_app:app"),
    "titled script": script(PYTHON, title="model-server: ready"),
    "torchrun": script(str(TORCH / "torchrun"), "--nproc-per-node", "1"),
    "env -i": script("env", "-i", f"PYTHONPATH={_PYTHONPATH}", f"STORE=node:{STORE}", PYTHON),
    "setpriv and nice": script("setpriv", "--no-new-privs", "nice", PYTHON),
    "double fork": script("setsid", "-f", PYTHON),
    "vllm-router": router("vllm-router"),
    "sglang-router": router("sglang-router", "launch"),
    "smg": router("smg", "launch"),
}

Packets = dict[object, tuple[set[str], set[str]]]


def packets(lab: Lab) -> Packets:
    """What the peer and the stranger get from each listener that other hosts could reach."""
    there = [one for one in listeners_of(lab.node) if one.targets(lab.node)]
    peer, stranger = (try_all(who, lab.node, there) for who in (lab.peer, lab.stranger))
    found: Packets = {}
    for one in there:
        got = found.setdefault((one.address, one.port), (set(), set()))
        got[0].update(peer[one])
        got[1].update(stranger[one])
    return found


def expected(server: Server, found: Packets) -> Packets:
    """What these listeners should give."""
    return {key: server.expected.get(key[1], PEERS) for key in found}  # type: ignore[index]


def audience(server: Server, port: object) -> list[str]:
    """The audience that `status` should show."""
    return ["public"] if server.expected.get(port, PEERS) is PUBLIC else ["peers"]  # type: ignore[call-overload]


def killed(node: Guarded) -> None:
    node.stop(signal.SIGKILL)


def upgraded(node: Guarded) -> None:
    """From a version that wrote another file."""
    node.stop(signal.SIGTERM)
    file = node.runtime / FILE_NAME
    file.write_text(file.read_text().replace('"version": 1', '"version": 0'))


def came_later(node: Guarded) -> None:
    """As if there had been none: no memory and no wall."""
    node.command("down")
    node.stop(signal.SIGTERM)
    shutil.rmtree(node.runtime)


ENDS: tuple[Callable[[Guarded], None], ...] = (killed, upgraded, killed, came_later)


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Guarded]:
    with Lab() as lab:
        found = Guarded(lab, tmp_path / "wall")
        found.start()
        yield found


def begun(node: Guarded, name: str, folder: Path) -> Job:
    """The server, in the lab."""
    argv, environment = SERVERS[name].argv, {}
    if not argv[0].startswith(str(ROUTERS)):
        environment = {"PYTHONPATH": _PYTHONPATH, "STORE": f"node:{STORE}"}
    return start(name.replace(" ", "-"), node.lab.node, argv, folder, environment)


def is_settled(node: Guarded, server: Server) -> bool:
    """Everything listens, is known, and gives what it should."""
    try:
        found = packets(node.lab)
    except AssertionError:  # a socket that has no owner yet
        return False
    ports = {port for _, port in found}  # type: ignore[misc]
    known = {one["port"]: one["audience"] for one in node.listeners()}
    shown = all(known.get(port) == audience(server, port) for port in ports)
    awaits = found == expected(server, found) and server.expected.keys() <= ports
    return len(found) >= server.at_least and awaits and shown


def has_thought_twice(node: Guarded) -> bool:
    return int(node.ask("status")["daemon"]["passes"]) >= 2  # type: ignore[index, call-overload]


@pytest.mark.parametrize("name", SERVERS)
def test_one_answer(name: str, node: Guarded, tmp_path: Path) -> None:
    """The daemon first, killed, upgraded, killed again, and last."""
    server = SERVERS[name]
    if name in ("vllm-router", "sglang-router", "smg") and not Path(server.argv[0]).exists():
        pytest.skip(f"no {name}: tests/setup/routers .cache/routers")
    job = begun(node, name, tmp_path)
    eventually(
        lambda: is_settled(node, server),
        f"{name} is walled",
        lambda: f"{job.output()}\n{packets(node.lab)}\n{node._shown()}",
        PATIENCE,
    )
    first = packets(node.lab)
    for end in ENDS:
        end(node)
        node.start()
        eventually(lambda: has_thought_twice(node), "the second pass", node.log)
        assert first == packets(node.lab), end.__name__


def test_one_answer_of_a_stand_in(node: Guarded, tmp_path: Path) -> None:
    """The tree of `vllm serve`, whose workers overwrite their command lines."""
    server = Server((), {8000: PUBLIC}, 4)
    job = start_stand_in(node.lab.node, tmp_path)
    job.wait_for("serving", PATIENCE)
    eventually(lambda: is_settled(node, server), "it is walled", node._shown, PATIENCE)
    first = packets(node.lab)
    for end in ENDS:
        end(node)
        node.start()
        eventually(lambda: has_thought_twice(node), "the second pass", node.log)
        assert first == packets(node.lab), end.__name__
