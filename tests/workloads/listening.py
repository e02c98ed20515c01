"""What listens in a host of the lab, as `ss` tells it, and what others get who try it.

Independent of the product's own view of sockets, so that a bug there cannot hide here.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

from tests.support.lab import Host

_LINE = re.compile(r'LISTEN\s+\d+\s+\d+\s+(\S+):(\d+)\s+\S+\s+users:\(\("([^"]*)",pid=(\d+)')
_PATIENCE = 20.0  # seconds until a port that shall be open is
_WAIT = 1.0  # seconds for a connection on a link that exists in memory only


@dataclass(frozen=True, order=True)
class Listening:
    """One listening TCP socket. ``address`` is as `ss` writes it, ``*`` for both families."""

    port: int
    address: str
    program: str
    pid: int

    def targets(self, host: Host) -> tuple[str, ...]:
        """The addresses of ``host`` at which others find it; none for loopback."""
        if self.address == "*":
            return host.ipv4, host.ipv6
        address = ip_address(self.address.strip("[]").partition("%")[0])
        if address.is_unspecified:
            return (host.ipv4 if address.version == 4 else host.ipv6,)
        return () if address.is_loopback else (str(address),)


def listeners_of(host: Host) -> list[Listening]:
    """Every listening TCP socket of the host that has an owner, by port."""
    lines = host.run(["ss", "-ltnpH"]).stdout.splitlines()
    found = [match.groups() for line in lines if (match := _LINE.match(line))]
    assert len(found) == len(lines), f"not understood:\n{lines}"
    return sorted(Listening(int(port), where, name, int(pid)) for where, port, name, pid in found)


def try_all(who: Host, host: Host, listeners: Iterable[Listening]) -> dict[Listening, set[str]]:
    """What ``who`` gets from each: ``open``, ``refused``, ``timeout``, over every address.

    Raises AssertionError for a TensorPipe socket: one connection can end its whole agent.
    """
    tries = [(one, address) for one in listeners for address in one.targets(host)]
    assert not [one for one, _ in tries if _is_tensorpipe(one.pid)]
    with ThreadPoolExecutor(max_workers=16) as pool:
        outcomes = pool.map(lambda one: who.connect(one[1], one[0].port, timeout=_WAIT), tries)
        got: dict[Listening, set[str]] = {}
        for (one, _), outcome in zip(tries, outcomes, strict=True):
            got.setdefault(one, set()).add(outcome)
    return got


def completion(who: Host, address: str, port: int, model: str, *, timeout: float = 60) -> str:
    """Ask an OpenAI-compatible API for four tokens; its text. Raises OSError."""
    connection = http.client.HTTPConnection(address, port)
    connection.sock = _dial_patiently(who, address, port)
    connection.sock.settimeout(timeout)
    try:
        question = {"model": model, "prompt": "hello", "max_tokens": 4}
        headers = {"content-type": "application/json"}
        connection.request("POST", "/v1/completions", json.dumps(question), headers)
        answer = connection.getresponse()
        text = answer.read().decode()
        assert answer.status == http.HTTPStatus.OK, f"{answer.status}: {text}"
        return str(json.loads(text)["choices"][0]["text"])
    finally:
        connection.close()


def _dial_patiently(who: Host, address: str, port: int) -> socket.socket:
    # uvicorn says that its start is complete just before it listens.
    deadline = time.monotonic() + _PATIENCE
    while True:
        try:
            return who.dial(address, port, timeout=_WAIT)
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def _is_tensorpipe(pid: int) -> bool:
    names = Path(f"/proc/{pid}/task").glob("*/comm")
    return any(name.read_text().startswith("TP_") for name in names)
