"""The ports that commands opened, when their file cannot be written."""

from __future__ import annotations

from pathlib import Path

import pytest

from vllmwall.decide.opened import OpenedApi
from vllmwall.engine.api_ports import ApiPorts
from vllmwall.engine.saved_apis import ApiError


def test_a_port_that_cannot_be_kept_is_not_opened(tmp_path: Path) -> None:
    """Else it would close at the next start. The message names the file."""
    folder = tmp_path / "run"
    folder.write_text("no folder")
    ports = ApiPorts(folder)
    with pytest.raises(ApiError, match=r"/run/apis\.json cannot be written: "):
        ports.add(OpenedApi(8000, "vllm"), save=False)
    assert () == ports.opened()
    folder.unlink()
    folder.mkdir()
    ports.add(OpenedApi(8000, "vllm"), save=False)
    assert ports.opened() == ApiPorts(folder).opened() == (OpenedApi(8000, "vllm"),)
