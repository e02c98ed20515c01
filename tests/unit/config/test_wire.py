"""Frozen values as JSON: what comes back is equal, and nothing else is accepted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.unit.conftest import Write
from vllmwall.config.reading import Reading, read
from vllmwall.engine.options import Options
from vllmwall.linux.wire import Fit, decode, encode


def test_options_come_back_equal() -> None:
    """Paths, optional ones and tuples."""
    options = Options(Path("/etc/x"), only_namespaces=("a", "b"), state_file=Path("/var/x"))
    there = json.loads(json.dumps(encode(options)))
    assert options == decode(Options, there, Fit.WHOLE)
    assert Options() == decode(Options, encode(Options()), Fit.WHOLE)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("guards", 1),
        ("guards", "true"),
        ("full_pass_seconds", "60"),
        ("full_pass_seconds", True),
        ("files", "/etc/x"),
        ("files", [5]),
        ("log", None),
        ("policy", []),
        ("lessons", [{"name": "x"}]),
        ("metrics", {"listen": "", "textfile": "", "more": ""}),
        ("control_group", {"a": "b"}),
    ],
)
def test_a_value_of_another_type_is_refused(write: Write, key: str, value: object) -> None:
    """With the place where it was found."""
    good = json.loads(json.dumps(encode(read(write("")))))
    assert decode(Reading, good, Fit.WHOLE).settings is not None
    good["settings"][key] = value
    with pytest.raises(ValueError, match="settings"):
        decode(Reading, good, Fit.WHOLE)


@pytest.mark.parametrize(
    "garbage", [None, [], 5, "x", {}, {"settings": None}, {"settings": None, "problems": [[]]}]
)
def test_garbage_is_refused(garbage: object) -> None:
    """A value is taken whole or not at all."""
    with pytest.raises(ValueError, match="Reading"):
        decode(Reading, garbage, Fit.WHOLE)


@pytest.mark.parametrize("field", ["mode", "failsafe", "groups", "audiences"])
def test_a_policy_without_a_field_is_refused(write: Write, field: str) -> None:
    """A default in its place could open what was closed."""
    good = json.loads(json.dumps(encode(read(write("")))))
    del good["settings"]["policy"][field]
    with pytest.raises(ValueError, match=rf"Reading\.settings\.policy\.{field}: a value is needed"):
        decode(Reading, good, Fit.WHOLE)
