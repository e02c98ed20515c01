"""Files of a process: links stay below its root; versions and weights are read from names."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path

import pytest

from tests.unit.inspect.audit.conftest import Start
from vllmwall.inspect.audit.collect.files import View
from vllmwall.inspect.audit.collect.packages import versions
from vllmwall.inspect.audit.collect.weights import ChecksumError, read_checksums, weights
from vllmwall.inspect.audit.types import Environment

ME = os.getpid()
NOTHING = Environment()


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A model's directory, as it should be."""
    tmp_path.chmod(0o755)
    folder = tmp_path / "org" / "llama"
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_text("weights")
    (folder / "config.json").write_text(json.dumps({"architectures": ["LlamaForCausalLM"]}))
    return folder


def test_links_are_followed_below_the_root_of_the_process(tmp_path: Path) -> None:
    """Relative, absolute, upwards and in a circle."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "file").write_text("x")
    (tmp_path / "b").symlink_to(tmp_path / "a")
    (tmp_path / "c").symlink_to("b/../a/file")
    (tmp_path / "round").symlink_to("round")
    view = View(ME)
    assert view.resolve(f"{tmp_path}/b/file") == f"{tmp_path}/a/file"
    assert view.resolve(f"{tmp_path}/c") == f"{tmp_path}/a/file"
    assert view.resolve(f"{tmp_path}/../../../../..//{tmp_path}/./a") == f"{tmp_path}/a"
    assert view.resolve(f"{tmp_path}/round") is None
    assert view.resolve(f"{tmp_path}/none") is None
    assert view.resolve("/../..") == "/"


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    """A pipe would wait for ever, a device could act."""
    os.mkfifo(tmp_path / "pipe")
    view = View(ME)
    assert view.open(f"{tmp_path}/pipe") is None
    assert view.open("/dev/null") is None
    assert view.open(str(tmp_path)) is None
    assert view.open("a\0b") is None


@pytest.mark.parametrize("library", ["lib/python3.12/site-packages", "lib/python3/dist-packages"])
def test_versions_come_from_the_scripts_own_environment(
    start: Start, tmp_path: Path, library: str
) -> None:
    """A venv's bin/vllm, without running it."""
    place = tmp_path / "venv" / library
    for name in ("vllm-0.32.0+cpu", "Mooncake_Transfer.Engine-0.3.1", "starlette-0.50.0", "x-1"):
        (place / f"{name}.dist-info").mkdir(parents=True)
    process = start("serve", "m", folder=tmp_path / "venv" / "bin")
    found = versions(process, {"vllm", "starlette", "mooncake-transfer-engine"})
    assert found == {
        "vllm": "0.32.0+cpu",
        "starlette": "0.50.0",
        "mooncake-transfer-engine": "0.3.1",
    }


def test_what_cannot_be_found_has_no_version(start: Start) -> None:
    """Not known is not old."""
    assert "vllm" not in versions(start("serve", "m"), {"vllm"})


def test_good_weights_have_nothing_wrong(model: Path) -> None:
    """The negative of everything below."""
    sums = {f"{model}/{one.name}": digest(one.read_text()) for one in model.iterdir()}
    found = weights(ME, str(model), NOTHING, sums)
    assert found is not None
    assert (found.writable, found.wrong, found.pickles) == ((), (), ())
    assert found.safetensors
    assert found.multimodal is False


@pytest.mark.parametrize("key", ["{}", "org/llama", "llama", "./llama"])
def test_a_file_that_differs_from_its_checksum_is_named(
    model: Path, key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By its whole path, or by the end of it."""
    base = key.format(model)
    sums = {f"{base}/model.safetensors": digest("other"), f"{base}/config.json": digest("{}")}
    sums[f"{base}/config.json"] = digest((model / "config.json").read_text())
    name = "org/llama" if key == "org/llama" else str(model)
    if key == "org/llama":
        monkeypatch.chdir(model.parent.parent)
    found = weights(ME, name, NOTHING, sums)
    assert found is not None
    assert found.wrong == ("model.safetensors differs",)


def test_a_file_without_a_line_and_a_line_without_a_file_are_named(model: Path) -> None:
    """Whoever adds a file adds code."""
    sums = {f"{model}/config.json": digest((model / "config.json").read_text())}
    sums[f"{model}/gone.safetensors"] = digest("")
    found = weights(ME, str(model), NOTHING, sums)
    assert found is not None
    assert found.wrong == (
        "model.safetensors is not in the checksum file",
        f"{model}/gone.safetensors is missing",
    )


def test_weights_that_everybody_may_write_are_named(model: Path) -> None:
    """The file, or a directory above it."""
    (model / "model.safetensors").chmod(0o666)
    model.parent.chmod(0o777)
    found = weights(ME, str(model), NOTHING)
    assert found is not None
    assert found.writable == (str(model.parent), f"{model}/model.safetensors")
    assert found.wrong is None


def test_a_directory_without_end_is_not_read_to_its_end(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever starts a server may call the whole disk a model; that it was cut short is said."""
    monkeypatch.setattr(sys.modules[weights.__module__], "_MOST", 2)
    found = weights(ME, str(model), NOTHING, {})
    assert found is not None
    assert found.wrong is not None
    assert found.wrong[0] == "there are 2 files or more"


def test_pickles_are_told_from_other_files(model: Path) -> None:
    """training_args.bin is never loaded as weights."""
    for name in ("pytorch_model.bin", "training_args.bin", "tokenizer.model", "a.pt"):
        (model / name).write_text("")
    found = weights(ME, str(model), NOTHING)
    assert found is not None
    assert found.pickles == ("a.pt", "pytorch_model.bin")


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"architectures": ["Qwen2VLForConditionalGeneration"]}, True),
        ({"architectures": ["LlamaForCausalLM"], "vision_config": {}}, True),
        ({"architectures": ["T5ForConditionalGeneration"]}, None),
        ([], None),
    ],
)
def test_whether_a_model_takes_media_stands_in_its_config(
    model: Path, config: object, expected: bool | None
) -> None:
    """Unknown where it does not say."""
    (model / "config.json").write_text(json.dumps(config))
    found = weights(ME, str(model), NOTHING)
    assert found is not None
    assert found.multimodal is expected


def test_a_hub_model_is_found_in_its_cache(model: Path, tmp_path: Path) -> None:
    """Snapshots hold links to blobs."""
    cache = tmp_path / "hub" / "models--org--llama"
    commit = "0" * 40
    (cache / "snapshots" / commit).mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs" / "b1").write_text("weights")
    (cache / "snapshots" / commit / "model.safetensors").symlink_to("../../blobs/b1")
    (cache / "refs").mkdir()
    (cache / "refs" / "main").write_text(commit)
    env = Environment({"HF_HUB_CACHE": str(tmp_path / "hub")}, complete=True)
    sums = {"org/llama/model.safetensors": digest("weights")}
    found = weights(ME, "org/llama", env, sums)
    assert found is not None
    assert (found.safetensors, found.wrong) == (True, ())


def test_a_checksum_file_of_others_is_not_believed(tmp_path: Path) -> None:
    """Who writes it approves the weights."""
    path = tmp_path / "sums"
    path.write_text(f"{digest('a')}  llama/a\n{digest('b').upper()} *llama/b\n# note\n\n")
    path.chmod(0o600)
    assert read_checksums(path) == {"llama/a": digest("a"), "llama/b": digest("b")}
    path.chmod(0o666)
    with pytest.raises(ChecksumError):
        read_checksums(path)
    path.chmod(0o600)
    path.write_text("nonsense")
    with pytest.raises(ChecksumError, match=":1: no line of sha256sum"):
        read_checksums(path)
    with pytest.raises(ChecksumError):
        read_checksums(tmp_path / "none")
