"""The JSON schema of vllmwall.toml accepts what vllmwall accepts, and refuses unknown keys."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.support.scripts import packaging
from vllmwall.config.schema import json_schema
from vllmwall.config.toml import loads

ROOT = Path(__file__).parents[3]


def errors(text: str) -> list[str]:
    """What the schema refuses in a file, ``path: message``."""
    from jsonschema import Draft202012Validator

    validator = Draft202012Validator(json_schema())
    return [f"{one.json_path}: {one.message}" for one in validator.iter_errors(loads(text))]


def test_it_is_a_schema() -> None:
    """By the meta-schema that it names."""
    from jsonschema import Draft202012Validator

    Draft202012Validator.check_schema(json_schema())
    assert json_schema()["$schema"] == Draft202012Validator.META_SCHEMA["$id"]
    assert json_schema()["$id"] == "urn:vllmwall:schema:vllmwall.toml"


def test_the_packaged_file_is_valid() -> None:
    """As it is installed, and with every example in it."""
    text = (ROOT / "packaging/vllmwall.toml").read_text()
    assert errors(text) == []
    sample = packaging("config_docs").sample_toml()
    assert errors(re.sub(r"^#(?=\S)", "", sample, flags=re.MULTILINE)) == []


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mod = 'audit'", "$"),
        ("[peers]\ncidr = []", "$.peers"),
        ("[host]\nlockdwn = true", "$.host"),
        ("[policy]\nap = 'public'", "$.policy"),
        ("[[workload]]\nname = 'a'\nmatch = {unit = 'a', exes = 'b'}", "$.workload[0].match"),
    ],
)
def test_an_unknown_key_is_refused(text: str, where: str) -> None:
    """At every level of the file."""
    found = errors(text)
    assert len(found) == 1
    assert found[0].startswith(f"{where}: ")


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("mode = 'drop'", "$.mode"),
        ("peers.cidrs = '10.0.0.0/8'", "$.peers.cidrs"),
        ("host.lockdown = 1", "$.host.lockdown"),
        ("host.failsafe = ['22']", "$.host.failsafe[0]"),
        ("limits.connections = 0", "$.limits.connections"),
        ("daemon.full_pass_seconds = 0.5", "$.daemon.full_pass_seconds"),
        ("policy.api = 3", "$.policy.api"),
        (
            "[[workload]]\nname = 'a'\nmatch.unit = 'a'\napi_ports = [70000]",
            "$.workload[0].api_ports[0]",
        ),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused(text: str, where: str) -> None:
    """Types, choices and ranges."""
    assert [one.partition(": ")[0] for one in errors(text)] == [where]


def test_it_shows_defaults_as_they_are_written() -> None:
    """Ports as text; no default for what is absent until it is given."""
    host = json_schema()["$defs"]["HostSection"]["properties"]
    audit = json_schema()["$defs"]["AuditSection"]["properties"]
    assert host["failsafe"]["default"] == ["tcp/22"]
    assert "default" not in audit["checksums"]
    assert audit["checksums"]["type"] == "string"
