"""The sample and the reference page: generated, up to date, and true."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from vllmwall.config.__main__ import main
from vllmwall.config.documents import reference_markdown, sample_toml
from vllmwall.config.models import Config
from vllmwall.config.sections import MatchSection, WorkloadSection
from vllmwall.config.values import ROLE_NAMES
from vllmwall.config.wording import keys_of

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize(
    ("path", "text", "document"),
    [
        ("packaging/vllmwall.toml", sample_toml(), "sample"),
        ("docs/reference/config.md", reference_markdown(), "reference"),
    ],
)
def test_generated_files_are_up_to_date(path: str, text: str, document: str) -> None:
    """The files in the repository say what the models say."""
    hint = f"run: python -m vllmwall.config {document} > {path}"
    assert (ROOT / path).read_text() == text, hint


def test_the_sample_is_the_default_configuration(loaded: Callable[[str], Config]) -> None:
    """Installing the sample changes nothing."""
    assert loaded(sample_toml()).model_dump() == Config().model_dump()


def test_the_sample_works_with_every_example_in_it(loaded: Callable[[str], Config]) -> None:
    """Each commented line can be taken as it is, and together they are a configuration."""
    config = loaded(re.sub(r"^#(?=\S)", "", sample_toml(), flags=re.MULTILINE))
    assert [definition.name for definition in config.definitions()] == ["my-server"]
    assert config.policy().groups.keys() == {"monitoring"}
    assert len(config.peers.cidrs) == 2


def test_the_reference_names_every_key_and_role() -> None:
    """No key without a line of its own."""
    text = reference_markdown()
    sections = [Config, WorkloadSection, MatchSection]
    sections += [type(value) for value in (Config().peers, Config().host, Config().daemon)]
    for key in (key for section in sections for key in keys_of(section)):
        assert re.search(rf"^(\| `{key}` \||## `\[+{key}\]+`|### `{key}`)", text, re.MULTILINE), key
    assert all(f"`{role}`" in text for role in ROLE_NAMES)


def test_the_command_prints_each_document(capsys: pytest.CaptureFixture[str]) -> None:
    """python -m vllmwall.config sample|reference."""
    assert main(["sample"]) == 0
    assert capsys.readouterr().out == sample_toml()
    assert main(["reference"]) == 0
    assert capsys.readouterr().out == reference_markdown()


@pytest.mark.parametrize("arguments", [[], ["other"], ["sample", "reference"]])
def test_the_command_says_how_it_is_used(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """Anything else is answered with the usage."""
    assert main(arguments) == 2
    assert capsys.readouterr().err == "usage: python -m vllmwall.config sample|reference\n"


def test_the_module_can_be_run() -> None:
    """The command as the documentation writes it."""
    command = [sys.executable, "-m", "vllmwall.config", "sample"]
    assert (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout == sample_toml()
    )


def test_loading_the_reference_examples(loaded: Callable[[str], Config]) -> None:
    """The TOML blocks of the reference page are valid together."""
    blocks = re.findall(r"```toml\n(.*?)```", reference_markdown(), re.DOTALL)
    assert len(blocks) == 2
    assert loaded("".join(blocks)).policy().groups.keys() == {"monitoring"}


def test_reading_values_does_not_import_pydantic() -> None:
    """The command line reads networks, and answers before pydantic would be there."""
    code = "import sys, vllmwall.cidr, vllmwall.decide.walls; sys.exit('pydantic' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
