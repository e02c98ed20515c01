"""Cgroups that are guarded as soon as they are made, and the memory of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vllmwall.engine.armed_units import Armed
from vllmwall.linux.cgroups import SLICE
from vllmwall.model import Guard
from vllmwall.recognize.definitions import Match, WorkloadDefinition

HOME, AWAY = 4026531840, 4026532008
UNIT = "/system.slice/vllm.service"
SCOPE = "/system.slice/run-1.scope"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Where the armed units are kept."""
    return tmp_path / "armed.json"


def guards(*paths: str) -> frozenset[Guard]:
    """Guards on these paths."""
    return frozenset(Guard(2, number, path) for number, path in enumerate(paths))


def test_the_slice_is_always_armed() -> None:
    """Before its first job, in the namespaces that are ours."""
    assert {HOME} == Armed({HOME}).namespaces(SLICE)
    assert {SLICE: {HOME}} == Armed({HOME}).expected(())


def test_nothing_else_is_armed_by_itself() -> None:
    """Neither a unit nor what lies in the slice, which the slice's guard covers."""
    armed = Armed({HOME})
    assert not any(armed.namespaces(path) for path in (UNIT, "/", "", SLICE + "/job.scope"))


@pytest.mark.parametrize("glob", ["vllm.service", "vllm*", "*.service", UNIT, "/system.slice/*"])
def test_a_glob_arms_by_name_or_path(glob: str) -> None:
    """As people write units: by their name, or where they lie."""
    armed = Armed({HOME})
    armed.configure([glob], ())
    assert {HOME} == armed.namespaces(UNIT)
    assert {SLICE: {HOME}, UNIT: {HOME}} == armed.expected([UNIT])


@pytest.mark.parametrize("glob", ["vllm", "llm.service", "system.slice", "/system.slice", ""])
def test_a_glob_names_the_whole(glob: str) -> None:
    """A part of a name is another name; an empty one is none."""
    armed = Armed({HOME})
    armed.configure([glob], ())
    assert not armed.namespaces(UNIT)


def test_lessons_arm_their_units_and_cgroups() -> None:
    """Software that the operator taught us has no other sign before it listens."""
    armed = Armed({HOME})
    matches = Match(unit="mine.service"), Match(cgroup="/ml/*"), Match(exe="*")
    armed.configure((), [WorkloadDefinition("mine", match) for match in matches])
    assert armed.namespaces("/system.slice/mine.service")
    assert armed.namespaces("/ml/a")
    assert not armed.namespaces(UNIT)


def test_another_configuration_disarms() -> None:
    """What is configured counts as long as it is."""
    armed = Armed({HOME})
    armed.configure(["vllm.service"], ())
    armed.configure([], ())
    assert not armed.namespaces(UNIT)


def test_a_guarded_unit_is_armed_where_it_was() -> None:
    """A restarted unit is another cgroup, in the same namespaces."""
    armed = Armed({HOME})
    armed.learn({AWAY: guards(UNIT)})
    armed.learn({HOME: guards(UNIT)})
    assert {HOME, AWAY} == armed.namespaces(UNIT)


def test_a_scope_is_not_learnt() -> None:
    """Its name is given once."""
    armed = Armed({HOME})
    armed.learn({HOME: guards(SCOPE)})
    assert not armed.namespaces(SCOPE)


def test_an_expected_cgroup_is_armed_until_it_ends() -> None:
    """`vllmwall run` asks for its scope before there is a process in it."""
    armed = Armed({HOME})
    armed.expect(SCOPE, {AWAY})
    armed.expect(UNIT, {AWAY})
    armed.drop_ended({SCOPE: 5, UNIT: 6})
    assert {AWAY} == armed.namespaces(SCOPE)
    armed.drop_ended({})
    assert not armed.namespaces(SCOPE)
    assert {AWAY} == armed.namespaces(UNIT)


def test_a_namespace_that_ended_is_forgotten() -> None:
    """Its number can be another's; the home namespaces stay."""
    armed = Armed({HOME})
    armed.learn({HOME: guards(UNIT), AWAY: guards(UNIT, "/away.service")})
    armed.forget({AWAY})
    assert {HOME, AWAY} == armed.namespaces(UNIT)
    armed.forget(())
    assert {HOME} == armed.namespaces(UNIT)
    assert not armed.namespaces("/away.service")


def test_a_unit_is_remembered_over_a_restart(file: Path) -> None:
    """The next daemon arms what this one guarded."""
    Armed({HOME}, file).learn({AWAY: guards(UNIT)})
    assert {AWAY} == Armed({HOME}, file).namespaces(UNIT)


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "null", "7", '{"/a.service": 5}', '{"/a.service": ["x"]}', '{"/a": [[1]]}',
     '{"/a.service": null}', "\0\0\0", '{"/a.service": [1e999]}', "[" * 100_000],
    ids=["empty", "cut", "list", "null", "number", "no list", "words", "nested", "nothing",
         "zeros", "infinity", "deep"],
)  # fmt: skip
def test_garbage_is_nothing_remembered(file: Path, text: str) -> None:
    """A crash can leave anything in the file; the daemon starts all the same and rewrites it."""
    file.write_text(text)
    armed = Armed({HOME}, file)
    assert {SLICE: {HOME}} == armed.expected(())
    armed.learn({AWAY: guards(UNIT)})
    assert {AWAY} == Armed({HOME}, file).namespaces(UNIT)


def test_bytes_that_are_no_text_are_nothing_remembered(file: Path) -> None:
    """Nor a folder in the file's place."""
    file.write_bytes(b"\xff\xfe{")
    assert {SLICE: {HOME}} == Armed({HOME}, file).expected(())
    file.unlink()
    file.mkdir()
    armed = Armed({HOME}, file)
    armed.learn({AWAY: guards(UNIT)})
    assert {AWAY} == armed.namespaces(UNIT)


def test_a_disk_that_takes_nothing_costs_only_the_memory(tmp_path: Path) -> None:
    """The folder is gone: what is armed counts for this daemon."""
    armed = Armed({HOME}, tmp_path / "gone" / "armed.json")
    armed.learn({HOME: guards(UNIT)})
    assert {HOME} == armed.namespaces(UNIT)


def test_the_same_again_writes_nothing(file: Path) -> None:
    """A pass a millisecond must not be a write a millisecond."""
    armed = Armed({HOME}, file)
    armed.learn({HOME: guards(UNIT)})
    file.unlink()
    armed.learn({HOME: guards(UNIT)})
    armed.drop_ended({})
    assert not file.exists()


def test_memory_is_bounded(file: Path) -> None:
    """A user who makes and ends units for ever pushes out the oldest, and no more than that."""
    armed = Armed({HOME}, file)
    armed.learn({HOME: guards(*(f"/{number}.service" for number in range(5000)))})
    armed.expect("/last.service", {HOME})
    kept = json.loads(file.read_text())
    assert 512 == len(kept)
    assert "/last.service" in kept


def test_what_is_active_is_not_the_oldest(file: Path) -> None:
    """What stays guarded stays remembered, however many others come and go after it."""
    armed = Armed({HOME}, file)
    for number in range(1000):
        armed.learn({HOME: guards("/docker/" + "a" * 64, f"/docker/{number:064x}")})
    assert {HOME} == armed.namespaces("/docker/" + "a" * 64)
    assert not armed.namespaces(f"/docker/{1:064x}")


def test_a_user_pushes_out_only_what_is_his() -> None:
    """Whatever he starts in his own slice."""
    armed = Armed({HOME})
    armed.learn({HOME: guards(UNIT)})
    above = "/user.slice/user-1000.slice/user@1000.service/app.slice"
    for number in range(2000):
        armed.learn({HOME: guards(f"{above}/{number}.service")})
    assert {HOME} == armed.namespaces(UNIT)
    assert {HOME} == armed.namespaces(f"{above}/1999.service")
    assert not armed.namespaces(f"{above}/1900.service")
