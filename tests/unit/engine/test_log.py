"""The log: what a person, a machine and the journal get."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

LOG = """
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.log import configure
kept = []
log = configure({kind!r}, {level!r}, lambda key, fields: kept.append(key))
log(EventKey.WALL_CHANGED, namespace="host", added=["tcp/29500", "tcp/29501"])
log(EventKey.LISTENER_GONE)
assert kept == [EventKey.WALL_CHANGED, EventKey.LISTENER_GONE]
"""
# A journal of our own: the socket that journald listens on, in a mount namespace of its own.
JOURNAL = (
    """
import socket, sys
journal = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
journal.bind("/run/systemd/journal/socket")
journal.settimeout(10)
"""
    + LOG.format(kind="journal", level="info")
    + "sys.stdout.buffer.write(journal.recv(65536))"
)


def logged(kind: str, level: str = "info") -> str:
    code = LOG.format(kind=kind, level=level)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr


def test_json_is_one_object_a_line() -> None:
    """For whatever collects logs."""
    [line] = logged("json").splitlines()
    record = json.loads(line)
    expected = {
        "event": "wall_changed",
        "message": "wall changed",
        "level": "info",
        "namespace": "host",
        "added": ["tcp/29500", "tcp/29501"],
    }
    assert expected == {key: record.get(key) for key in expected}


def test_a_person_reads_the_same() -> None:
    """Without colours where no terminal is."""
    text = logged("console")
    assert "wall changed" in text
    assert "wall_changed" not in text
    assert "\x1b" not in text


def test_without_a_terminal_and_a_journal_it_is_json() -> None:
    """What `auto` means under a supervisor that is not systemd."""
    assert json.loads(logged("auto"))["event"] == "wall_changed"


def test_the_level_decides() -> None:
    """Debug is silent by default; the event log keeps every event all the same."""
    assert "listener_gone" in logged("json", "debug")
    assert logged("json", "error") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: mounts a journal socket of its own")
def test_the_journal_gets_fields_and_a_readable_line() -> None:
    """``journalctl VLLMWALL_NAMESPACE=host`` finds it."""
    script = (
        'mkdir -p /run/systemd/journal && mount -t tmpfs none /run/systemd/journal && exec "$@"'
    )
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", sys.executable, "-c", JOURNAL],
        capture_output=True,
        check=True,
    )
    fields = dict(line.split("=", 1) for line in done.stdout.decode().splitlines() if "=" in line)
    expected = {
        "MESSAGE": "wall changed namespace=host added=tcp/29500; tcp/29501",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "vllmwall",
        "VLLMWALL_NAMESPACE": "host",
        "VLLMWALL_ADDED": "tcp/29500; tcp/29501",
        "VLLMWALL_EVENT": "wall_changed",
    }
    assert expected == {key: fields.get(key) for key in expected}
