"""The sample and the reference page: generated, up to date, and true."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support.scripts import packaging
from vllmwall.config.models import Config
from vllmwall.config.sections import MatchSection, Section, WorkloadSection
from vllmwall.config.toml import loads
from vllmwall.config.values import ROLE_NAMES
from vllmwall.config.wording import keys_of, section_of

ROOT = Path(__file__).parents[3]
DOCS = packaging("config_docs")


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("packaging/vllmwall.toml", DOCS.sample_toml()),
        ("docs/reference/config.md", DOCS.reference_markdown()),
    ],
)
def test_generated_files_are_up_to_date(path: str, text: str) -> None:
    """The files in the repository say what the models say."""
    assert (ROOT / path).read_text() == text, "run: make docs"


def test_every_key_has_words_and_every_word_a_key() -> None:
    """keys.toml and the models name the same keys."""
    told = loads((ROOT / "vllmwall" / "config" / "keys.toml").read_text())
    assert keys_told(told) == {f"{table}.{key}".lstrip(".") for table, key in every_key(Config)}


def keys_told(tree: Mapping[str, Any], above: str = "") -> set[str]:
    """The paths of tables with a meaning."""
    inner = {f"{above}.{key}".lstrip("."): one for key, one in tree.items() if key != "example"}
    tables = {path: one for path, one in inner.items() if isinstance(one, dict)}
    deeper = (keys_told(one, path) for path, one in tables.items())
    return {path for path, one in tables.items() if "meaning" in one}.union(*deeper)


def every_key(section: type[Section], table: str = "") -> Iterator[tuple[str, str]]:
    """The keys of all tables that hold a value or must be written."""
    for key, name in keys_of(section).items():
        field = section.model_fields[name]
        if table or section_of(field) is None:
            yield table, key
        if inner := section_of(field):
            yield from every_key(inner, f"{table}.{key}".lstrip("."))


def test_the_sample_is_the_default_configuration(loaded: Callable[[str], Config]) -> None:
    """Installing the sample changes nothing."""
    assert loaded(DOCS.sample_toml()).model_dump() == Config().model_dump()


def test_the_sample_works_with_every_example_in_it(loaded: Callable[[str], Config]) -> None:
    """Each commented line can be taken as it is, and together they are a configuration."""
    config = loaded(re.sub(r"^#(?=\S)", "", DOCS.sample_toml(), flags=re.MULTILINE))
    assert [definition.name for definition in config.definitions()] == ["my-server"]
    assert config.policy().groups.keys() == {"monitoring"}
    assert len(config.peers.cidrs) == 2


def test_the_reference_names_every_key_and_role() -> None:
    """No key without a line of its own."""
    text = DOCS.reference_markdown()
    sections = [Config, WorkloadSection, MatchSection]
    sections += [type(value) for value in (Config().peers, Config().host, Config().daemon)]
    for key in (key for section in sections for key in keys_of(section)):
        assert re.search(rf"^(\| `{key}` \||## `\[+{key}\]+`)", text, re.MULTILINE), key
    assert all(f"`{role}`" in text for role in ROLE_NAMES)


def test_loading_the_reference_examples(loaded: Callable[[str], Config]) -> None:
    """The TOML blocks of the reference page are valid together."""
    blocks = re.findall(r"```toml\n(.*?)```", DOCS.reference_markdown(), re.DOTALL)
    assert len(blocks) == 2
    assert loaded("".join(blocks)).policy().groups.keys() == {"monitoring"}


def test_reading_values_does_not_import_pydantic() -> None:
    """The command line reads networks, and answers before pydantic would be there."""
    code = "import sys, vllmwall.cidr, vllmwall.decide.walls; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
