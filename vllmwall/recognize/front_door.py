"""The API of any front process: what its operator asked for, whatever the program is called.

Two strong, independent pieces prove it: the port is on the process's own command line or in
its environment, or is its web server's default; and it is a web server, by its command line, its
title, a mapped parser, or the queue of 2048 that only uvicorn and gunicorn ask for. An engine, a
rank or a worker has no API, and a known internal fingerprint speaks against it. What only looks
like a web server is ``web``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from vllmwall.model import Evidence, Label, Listener, Proto, Role
from vllmwall.recognize.commandline import Command
from vllmwall.recognize.fingerprints import (
    PROMETHEUS_BACKLOG,
    UVICORN_BACKLOG,
    asked,
    library_label,
)
from vllmwall.recognize.row_file import table
from vllmwall.recognize.rows import WebServer, ports_in, ports_named
from vllmwall.recognize.stack_rules import Candidate, ListenerContext, WorkloadTree, label

_FRONTS = ("front", "driver", "job", "defined")
WEB_LIBRARIES = {
    "httptools": 8000,
    "aiohttp": 8080,
    "granian": 8000,
    "robyn": 8080,
    "tornado": 8888,
    "gevent": 8000,
}
"""Parsers that only web servers map, and the port that those listen on unasked."""
_UVICORN_PORTS = frozenset({8000, 7860})
"""Where uvicorn and Gradio, which runs it, listen unasked."""
_WEB_QUEUES = (50, 128, 511, 1024, UVICORN_BACKLOG)
"""Twisted; aiohttp, tornado, werkzeug; node, nginx; waitress, hyper. Others' too."""
_OTHER_QUEUES = (4096, -1)
_RAY_WORKER = "default_worker.py"
_PORT_ENDS = frozenset({"port", "bind", "listen", "addr", "address"})
_PORT_WORDS = frozenset(
    {"http", "https", "api", "server", "web", "serve", "service", "rest", "openai", "app", "public"}
    | {"frontend", "host", "on"}
)
_SHORT = ("-p", "-P", "-b")
_CONFIGS = ("-c", "--config")
_ENV = ("PORT", "API_PORT", "SERVER_PORT", "HTTP_PORT", "APP_PORT", "NIM_SERVER_PORT",
    "NIM_HTTP_API_PORT", "AIP_HTTP_PORT", "SAGEMAKER_BIND_TO_PORT", "WEB_PORT",
    "GRADIO_SERVER_PORT")  # fmt: skip


def front_label(context: ListenerContext) -> Label | None:
    """``api`` or ``web`` for a listener that no stack explains; None: it is neither."""
    if context.listener.proto is not Proto.TCP:
        return None
    part = _nearest_part(context)
    if not part.startswith(_FRONTS) and part != "rank":
        return None  # a server that its stack knows, an engine, a worker
    server = next(filter(None, map(table().web_server, _candidates(context))), None)
    fingerprint = library_label(context)
    if fingerprint is not None and not (
        server and fingerprint.role is Role.ZMQ and _is_named(context, server)
    ):
        return None
    if asked(context.listener, PROMETHEUS_BACKLOG):
        return None
    port, web = _port(context, server), _web(context, server)
    if web is None:
        return _hint(context, port) if part != "rank" else None
    # a web server that also joined a process group: no launcher above made it one rank of many
    alone = context.owner == context.tree.root and server is not None
    if part != "rank" or alone:
        if port is not None:
            return Label(Role.API, 0.9, (port, web))
        if _is_for_workers(context, web, server) and not _named(context, server):
            return Label(Role.API, 0.8, (web, Evidence("tree", "the master opened it for workers")))
    return label(Role.WEB, 0.6, (web.kind, web.detail), ("tree", "not proven to be an API"))


def _hint(context: ListenerContext, port: Evidence | None) -> Label | None:
    """``web`` for a port that the command line names, of a program that may be a web server: it
    asks for a queue as some do. Others do so too, so that is no evidence for an API."""
    if port is None or port.kind == "default-port" or context.listener.is_loopback:
        return None
    candidate = context.tree.candidate(context.owner)
    queues = _WEB_QUEUES if candidate.is_python else (*_WEB_QUEUES, *_OTHER_QUEUES)
    fits = any(asked(context.listener, one) for one in queues)
    if not fits or table().is_store(candidate):
        return None
    return label(Role.WEB, 0.5, (port.kind, port.detail), ("tree", "may be a web server"))


def _candidates(context: ListenerContext) -> Iterator[Candidate]:
    return map(context.tree.candidate, context.owners)


def _nearest_part(context: ListenerContext) -> str:
    """The part of the nearest claimed process from the owner upwards."""
    tree = context.tree
    return next(
        (tree.claims[one].part for one in tree.line(context.owner) if one in tree.claims), ""
    )


def _port(context: ListenerContext, server: WebServer | None) -> Evidence | None:
    """The own command line or environment names the port, or it is the server's default."""
    listener, named = context.listener, _named(context, server)
    if listener.port in named:
        return Evidence(named[listener.port], f"port {listener.port}")
    if _is_elsewhere(context, named):
        return None
    if not (server or context.tree.once(_runs_engine, context.owner)):
        return None
    defaults = {port for name, port in WEB_LIBRARIES.items() if _has(context, name)}
    if server is not None:
        defaults = {server.default}
    elif _has_uvicorns_queue(listener):
        defaults |= _UVICORN_PORTS
    return Evidence("default-port", f"port {listener.port}") if listener.port in defaults else None


def _is_elsewhere(context: ListenerContext, named: Mapping[int, str]) -> bool:
    """The command line names another port, or a variable names one on which it does listen: many
    platforms set `PORT` for programs that never read it."""
    opened = {one.port for one in context.siblings}
    return any(kind != "environment" or port in opened for port, kind in named.items())


def _named(context: ListenerContext, server: WebServer | None) -> dict[int, str]:
    found: dict[int, str] = {}
    for command in _commands(context):
        found |= _named_by(context.process.env, command, server)
    if server is not None and not found:
        titles = (one.process.title for one in _candidates(context) if server.names.titled(one))
        words = (word for title in titles for word in title.split())
        found = {port: "title" for word in words for port in _address(word)}
    return found


def _is_for_workers(context: ListenerContext, web: Evidence, server: WebServer | None) -> bool:
    """A server's master handed it to its workers; its port is in a file, or a title took it.

    An engine that was forked holds its starter's sockets too, and is no such worker, whereas a
    worker by its title may have joined a process group.
    """
    tree = context.tree
    others = (
        pid for pid in context.owners if not (server and server.names.titled(tree.candidate(pid)))
    )
    parts = {tree.part_of(pid) for pid in others}
    if len(context.owners) < 2 or not all(one == "" or one.startswith("front") for one in parts):
        return False
    return (
        web.kind in ("title", "program", "library") or tree.part_of(context.owner) == "front/master"
    )


def _runs_engine(tree: WorkloadTree, pid: int) -> bool:
    """It maps an engine, or a claimed process is below it; and its command line can be read: what
    a title hides may say that the server is a partner's."""
    candidate = tree.candidate(pid)
    command = candidate.command
    if not (command.script or command.module):
        return False
    if candidate.title.startswith("ray::") or command.name == _RAY_WORKER:
        return False  # an actor: Ray wrote its command line, not its operator
    if candidate.has("vllm", "sglang", "lmdeploy", "torch", "ray"):
        return True
    return pid in tree.once(_above_claimed, tree.root)


def _above_claimed(tree: WorkloadTree, _: int) -> frozenset[int]:
    return frozenset(above for one in tree.claims for above in tree.line(one)[1:])


def _commands(context: ListenerContext) -> Iterator[Command]:
    """Those of the owners, and of the process that a multiprocessing owner was started by."""
    tree = context.tree
    for pid in context.owners:
        command = tree.candidate(pid).command
        yield command
        parent = tree.parents.get(pid, 0)
        if "multiprocessing" in command.code and parent in tree.members:
            yield tree.candidate(parent).command


def serves_on_its_own(candidate: Candidate, listener: Listener) -> bool:
    """It is a web server, and its command line names the port of this listener."""
    server = table().web_server(candidate)
    parses = any(maps_parser(candidate, library) for library in WEB_LIBRARIES)
    if server is None and not parses and not _has_uvicorns_queue(listener):
        return False
    return listener.port in _named_by(candidate.process.env, candidate.command, server)


def _named_by(
    env: Mapping[str, str], command: Command, server: WebServer | None
) -> Mapping[int, str]:
    if server is not None:
        flags, short = server.flags, server.short
        named = ports_named(env, command, flags, short, (*server.env, *_ENV))
        return named or {one: "flag" for word in command.words[-1:] for one in _address(word)}
    flags = tuple(sorted({name for word in command.args if (name := _port_flag(word))}))
    return ports_named(env, command, flags, _SHORT, _ENV)


def _address(word: str) -> tuple[int, ...]:
    """``0.0.0.0:8000`` or ``8000`` as the last plain word: ``manage.py runserver``."""
    return ports_in(word) if word[:1].isdigit() or word.startswith(("[", ":", "*")) else ()


def _port_flag(word: str) -> str:
    """The name of a flag that names an API's port: ``--port``, ``--http-port``, ``--bind``."""
    if not word.startswith("--"):
        return ""
    name = word[2:].partition("=")[0].replace("_", "-")
    parts = name.replace(".", "-").split("-")
    return name if parts[-1] in _PORT_ENDS and _PORT_WORDS.issuperset(parts[:-1]) else ""


def _has_uvicorns_queue(listener: Listener) -> bool:
    """As sock_diag shows it at any time: what only an event showed decides nothing here."""
    seen = listener.backlog if listener.queue_limit is None else listener.queue_limit
    return seen == UVICORN_BACKLOG


def _is_named(context: ListenerContext, server: WebServer) -> bool:
    """The command line of a web server names this port, or names none and no file that may."""
    port = _port(context, server)
    if port is None or port.kind != "default-port":
        return port is not None
    words = (word for command in _commands(context) for word in command.args)
    return not any(word.startswith(_CONFIGS) for word in words)


def _web(context: ListenerContext, server: WebServer | None) -> Evidence | None:
    """Why the owner is a web server."""
    listener = context.listener
    titled = server is not None and any(map(server.names.titled, _candidates(context)))
    if server is not None and not titled:
        return Evidence("program", "it is a web server")
    for name in WEB_LIBRARIES:
        if _has(context, name):
            return Evidence("library", name)
    if titled:
        return Evidence("title", "it is a web server")
    if _has_uvicorns_queue(listener):
        return Evidence("backlog", str(UVICORN_BACKLOG))
    return None


def _has(context: ListenerContext, library: str) -> bool:
    return any(maps_parser(one, library) for one in _candidates(context))


def maps_parser(candidate: Candidate, library: str) -> bool:
    """It maps the parser of this web server. Engines map aiohttp as clients."""
    is_client = library == "aiohttp" and candidate.has("vllm", "ray", "sglang")
    return candidate.has(library) and not is_client
