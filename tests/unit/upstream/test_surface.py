"""`make upstream` reads wheels without importing them, and reports what no table knows."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import pytest

from tests.unit.recognize.node_builder import node, process, tcp
from tests.upstream import known
from tests.upstream.packages import PACKAGES
from tests.upstream.running import without_role
from tests.upstream.surface import names_the_network, surface
from vllmwall.inspect.audit.rules import knobs
from vllmwall.observe.snapshot import dump

RECORDINGS = Path(__file__).parents[2] / "recordings"
CODE = """
@router.post("/v1/decisions")
@router.get("/health", tags=["x"])
async def answer(): ...

app.add_api_route("/brand-new", answer)
values.get("/not/a/route")
parser.add_argument("--api-key", "--brand_new_port", type=int)
parser.add_argument("--max-num-seqs")

class FrontendArgs:
    listen_key: str = ""
    colour: str = ""

class Other:
    other_key: str = ""
"""


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "thing-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("thing/cli/main.py", CODE)
        archive.writestr("thing/other.py", "raise SystemExit")
        archive.writestr("thing/empty/__init__.py", "")
    return path


def test_routes_and_flags_of_the_network_are_read(wheel: Path) -> None:
    """Decorators, added routes, arguments, and fields of the classes that become arguments."""
    found = surface(wheel, ("thing/cli/",))
    assert found.routes == {"/v1/decisions", "/health", "/brand-new"}
    assert found.flags == {"api-key", "brand-new-port", "listen-key"}


def test_what_no_table_knows_is_left_over(wheel: Path) -> None:
    """The check itself."""
    found = surface(wheel, ("thing/cli/",))
    assert found.flags - known.flags() == {"brand-new-port", "listen-key"}
    assert found.routes - known.routes("vllm") == {"/brand-new"}


@pytest.mark.parametrize("part", ["thing/gone/", "thing/empty/"])
def test_code_that_moved_is_a_failure_and_not_silence(wheel: Path, part: str) -> None:
    """Nothing found would look like nothing new."""
    with pytest.raises(LookupError, match="Edit tests/upstream"):
        surface(wheel, (part,))


@pytest.mark.parametrize(
    ("flag", "counts"),
    [("seed-listen-port", True), ("api-key", True), ("portfolio", False), ("max-len", False)],
)
def test_whole_words_count(flag: str, counts: bool) -> None:
    assert names_the_network(flag) is counts


def test_facts_of_vllm_0_33_are_in_the_tables() -> None:
    """Found by the first run."""
    assert {"/v1/decisions", "/v1/systemone", "/ping"} <= known.routes("vllm")
    assert {"seed-listen-port", "seed-token", "watermark-config"} <= known.flags()
    assert {"watermark-key", "redis-password"} <= set(knobs().secret.flags)


def test_no_flag_is_judged_twice() -> None:
    """A flag that a table reads needs no judgement by hand."""
    ours = known.judged()
    assert not ours.connects & ours.elsewhere
    assert not ours.harmless & (ours.connects | ours.elsewhere)
    assert set(ours.routes) <= {one.name for one in PACKAGES}


def test_a_listener_without_a_role_is_named(tmp_path: Path) -> None:
    """Also one in no workload; loopback counts for nothing."""
    server = process(10, "/v/bin/python3 /v/bin/vllm preload m", threads={"python3": 1})
    other = process(20, "/usr/bin/other")
    ports = (
        tcp(7100, "10.0.0.7", 10, backlog=128),
        tcp(7200, "10.0.0.7", 20, backlog=128),
        tcp(7300, "127.0.0.1", 20, backlog=128),
    )
    path = tmp_path / "snapshot.json"
    path.write_text(json.dumps(dump(node(server, other, *ports), host_facts={})))
    assert without_role(path) == [
        "tcp 10.0.0.7:7100: no role in vllm",
        "tcp 10.0.0.7:7200: in no workload",
    ]


def test_a_recording_of_the_real_thing_leaves_nothing_over() -> None:
    assert without_role(RECORDINGS / "nccl-root.json") == []
