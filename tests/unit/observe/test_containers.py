"""Images of containers, from files written as Docker and containerd write them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from vllmwall.observe import containers

ID = "0123456789abcdef" * 4


@pytest.fixture(autouse=True)
def roots(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """State directories of our own."""
    monkeypatch.setattr(containers, "DOCKER", tmp_path / "docker")
    monkeypatch.setattr(containers, "CONTAINERD", tmp_path / "containerd")
    containers._image.cache_clear()
    yield tmp_path
    containers._image.cache_clear()


def write(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.mark.parametrize(
    "cgroup", [f"/system.slice/docker-{ID}.scope", f"/docker/{ID}", f"/docker/{ID}/inner.slice"]
)
def test_dockers_image_is_found_by_the_cgroup(roots: Path, cgroup: str) -> None:
    """Both cgroup drivers, and a cgroup below the container's."""
    write(roots / "docker" / ID / "config.v2.json", {"Config": {"Image": "vllm/vllm-openai:v1"}})
    assert "vllm/vllm-openai:v1" == containers.image_of(cgroup)


def test_kubernetes_image_is_found_in_the_bundle(roots: Path) -> None:
    """containerd's CRI plugin annotates the bundle."""
    annotations = {"io.kubernetes.cri.image-name": "ghcr.io/a/b:1"}
    write(roots / "containerd" / ID / "config.json", {"annotations": annotations})
    cgroup = f"/kubepods.slice/kubepods-pod1.slice/cri-containerd-{ID}.scope"
    assert "ghcr.io/a/b:1" == containers.image_of(cgroup)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"Config": 1}', '{"Config": {}}'])
def test_an_image_that_cannot_be_read_is_not_known(roots: Path, content: str) -> None:
    """Half-written state is no error."""
    write(roots / "docker" / ID / "config.v2.json", content)
    assert "" == containers.image_of(f"/docker/{ID}")


@pytest.mark.parametrize("cgroup", ["/", "/user.slice/session-1.scope", f"/docker/{ID[:40]}"])
def test_what_is_no_container_has_no_image(cgroup: str) -> None:
    """No id, no file is read."""
    assert "" == containers.image_of(cgroup)
