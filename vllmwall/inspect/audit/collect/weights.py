"""The files of a served model on this node: formats, modes, checksums, what the model takes."""

from __future__ import annotations

import hashlib
import json
import os
import pwd
import re
import stat
from collections.abc import Iterator, Mapping
from itertools import islice
from pathlib import Path

from vllmwall.inspect.audit.collect.files import View
from vllmwall.inspect.audit.types import Environment, Weights
from vllmwall.linux.files import read_trusted

_CHUNK = 1 << 20
_CONFIG_LIMIT = 1 << 20
_DEEPEST = 4
_MOST = 4096  # files; a user may name the whole disk as a model
_SUM = re.compile(r"\\?([0-9a-fA-F]{64}) [ *](.+)")
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_NO_WEIGHTS = re.compile(r"training_args|optimizer|scheduler|rng_state|tokenizer")
_MEDIA_KEYS = ("vision_config", "audio_config", "vision_tower", "mm_vision_tower", "video_config")
_MEDIA_MODELS = re.compile(r"VL|Vision|Llava|Audio|Omni|Whisper|Video|Multimodal|Pixtral")


class ChecksumError(Exception):
    """The checksum file cannot be used; the message says why."""


def read_checksums(path: Path) -> Mapping[str, str]:
    """Path to SHA-256, from a file as sha256sum writes it. Raises ChecksumError."""
    try:
        text = read_trusted(path)
    except (OSError, UnicodeDecodeError) as error:
        raise ChecksumError(f"{path}: {error}") from error
    if text.complaint:
        raise ChecksumError(text.complaint)
    sums = {}
    for number, line in enumerate(text.text.splitlines(), 1):
        if line.strip() and not line.startswith("#"):
            match = _SUM.fullmatch(line)
            if match is None:
                raise ChecksumError(f"{path}:{number}: no line of sha256sum")
            sums[match[2]] = match[1].lower()
    return sums


def weights(
    pid: int, model: str, env: Environment, sums: Mapping[str, str] | None = None
) -> Weights | None:
    """The files of a model; None: no model is known. Verifies checksums where given."""
    if not model:
        return None
    view = View(pid)
    folder = _folder(view, model, env)
    if not folder:
        return Weights()
    files = tuple(islice(_files(view, folder), _MOST))
    names = [path.rpartition("/")[2] for path in files]
    return Weights(
        directory=model if view.is_directory(model) else folder,
        pickles=tuple(
            name for name in names if name.endswith(_PICKLES) and not _NO_WEIGHTS.search(name)
        ),
        safetensors=any(name.endswith(".safetensors") for name in names),
        writable=tuple(_writable(view, folder, files)),
        wrong=None if sums is None else tuple(_wrong(view, folder, model, files, sums)),
        multimodal=_takes_media(view, folder),
    )


def _folder(view: View, model: str, env: Environment) -> str:
    """The directory that the model is in, without links; empty: not found."""
    if view.is_directory(model):
        return view.resolve(model) or ""
    cache = f"{_hub(view, env)}/models--{model.replace('/', '--')}"
    file = view.open(f"{cache}/refs/main")
    if file is not None:
        with file:
            commit = file.read(64).decode(errors="replace").strip()
        if re.fullmatch(r"[0-9a-f]{40}", commit):
            return view.resolve(f"{cache}/snapshots/{commit}") or ""
    commits = view.names(f"{cache}/snapshots")
    return view.resolve(f"{cache}/snapshots/{commits[0]}") or "" if len(commits) == 1 else ""


def _hub(view: View, env: Environment) -> str:
    """Source: huggingface_hub/constants.py."""
    values = env.values
    if "HF_HUB_CACHE" in values:
        return values["HF_HUB_CACHE"]
    if "HF_HOME" in values:
        return f"{values['HF_HOME']}/hub"
    home = values.get("HOME") or _home(view)
    return f"{values.get('XDG_CACHE_HOME') or f'{home}/.cache'}/huggingface/hub"


def _home(view: View) -> str:
    try:
        return pwd.getpwuid(os.stat(f"/proc/{view.pid}").st_uid).pw_dir  # noqa: PTH116
    except (OSError, KeyError):
        return "/root"


def _files(view: View, folder: str, depth: int = 0) -> Iterator[str]:
    for name in view.names(folder):
        path = f"{folder}/{name}"
        status = view.status(path)
        if status is None or name.startswith("."):
            continue
        if stat.S_ISREG(status.st_mode):
            yield path
        elif stat.S_ISDIR(status.st_mode) and depth < _DEEPEST:
            yield from _files(view, path, depth + 1)


def _writable(view: View, folder: str, files: tuple[str, ...]) -> Iterator[str]:
    """Files and directories that every user may write; with the sticky bit others' names stay."""
    parts = folder.split("/")
    for end in range(2, len(parts) + 1):
        path = "/".join(parts[:end])
        status = view.status(path)
        if status and status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX:
            yield path
    for path in files:
        status = view.status(path)
        if status and status.st_mode & stat.S_IWOTH:
            yield path


def _wrong(
    view: View, folder: str, model: str, files: tuple[str, ...], sums: Mapping[str, str]
) -> Iterator[str]:
    given = view.absolute(model) if view.is_directory(model) else folder
    listed = set()
    if len(files) == _MOST:
        yield f"there are {_MOST} files or more"
    for path in files:
        name = path.removeprefix(folder + "/")
        keys = [f"{given}/{name}", path, *_ends(model, name)]
        key = next((one for one in sums if one in keys or one.removeprefix("./") in keys), None)
        listed.add(key)
        if key is None:
            yield f"{name} is not in the checksum file"
        elif _sha256(view, path) != sums[key]:
            yield f"{name} differs"
    for key in sums:
        if key not in listed and key.startswith((f"{given}/", f"{folder}/")):
            yield f"{key} is missing"


def _ends(model: str, name: str) -> tuple[str, ...]:
    """``org/model/file`` and ``model/file``."""
    plain = model.rstrip("/")
    return f"{plain.lstrip('/')}/{name}", f"{plain.rpartition('/')[2]}/{name}"


def _sha256(view: View, path: str) -> str:
    file = view.open(path)
    if file is None:
        return ""
    digest = hashlib.sha256()
    with file:
        while part := file.read(_CHUNK):
            digest.update(part)
    return digest.hexdigest()


def _takes_media(view: View, folder: str) -> bool | None:
    file = view.open(f"{folder}/config.json")
    if file is None:
        return None
    with file:
        text = file.read(_CONFIG_LIMIT)
    try:
        config = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(config, dict):
        return None
    kinds = config.get("architectures")
    names = " ".join(map(str, kinds)) if isinstance(kinds, list) else ""
    if any(key in config for key in _MEDIA_KEYS) or _MEDIA_MODELS.search(names):
        return True
    return False if names.endswith("ForCausalLM") else None
