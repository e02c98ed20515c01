"""`vllmwall prove` as a person runs it, and what its tests look at."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from pydantic import TypeAdapter

from tests.support.guarded import Guarded
from tests.support.lab import Host
from vllmwall.inspect.prove import ProbeReport, Proof


def command(socket_path: Path, *arguments: str) -> list[str]:
    cli = [sys.executable, "-m", "vllmwall", "--socket", str(socket_path)]
    return [*cli, "prove", *arguments]


def proved(node: Guarded, *arguments: str, status: int = 0) -> Proof:
    """The answer as JSON, with the exit status that it must have."""
    done = subprocess.run(
        command(node.runtime / "control.sock", "--json", *arguments),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert status == done.returncode, done.stdout + done.stderr
    return TypeAdapter(Proof).validate_json(done.stdout)


def probes(answer: Proof, port: int) -> list[ProbeReport]:
    return [one for one in answer.probes if one.port == port]


def fates(answer: Proof, port: int, source: str = "stranger") -> set[tuple[str, str, str]]:
    """What was expected and seen at a port, and whether that is right."""
    return {
        (one.expected.value, one.seen, one.outcome.value)
        for one in probes(answer, port)
        if one.source_kind == source
    }


OPEN = {("open", "open", "as expected")}
CLOSED = {("closed", "closed", "as expected")}


def traces(host: Host) -> str:
    """Everything of the network that a proof could change."""
    shown = [
        host.run(["sh", "-c", f"ip {what}"]).stdout
        for what in ("-o link | cut -d' ' -f2-", "addr", "rule", "-6 rule")
    ]
    shown += [host.run(["ip", f"-{each}", "route", "show", "table", "all"]).stdout for each in "46"]
    shown.append(host.run(["sysctl", "net.ipv4.ip_forward", "net.ipv4.conf.all"]).stdout)
    return "".join(shown)
