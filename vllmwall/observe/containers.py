"""The image of a container, from the files of Docker and containerd.

The container's id is in the cgroup path (``docker-<id>.scope``, ``cri-containerd-<id>.scope``,
``/docker/<id>``). Docker writes the image's name into ``config.v2.json``; containerd's CRI plugin
into the annotations of the bundle's ``config.json``. Seen with docker 20.10; containerd by its
source (internal/cri/annotations). Podman has no such file, so its images are unknown.
"""

from __future__ import annotations

import json
import re
from functools import lru_cache
from pathlib import Path

DOCKER = Path("/var/lib/docker/containers")
CONTAINERD = Path("/run/containerd/io.containerd.runtime.v2.task/k8s.io")
_ID = re.compile(r"[0-9a-f]{64}")
_SIZE_LIMIT = 1 << 20


def image_of(cgroup: str) -> str:
    """The name of the image that the container of this cgroup runs; empty: not known, or none."""
    found = _ID.search(cgroup)
    return _image(found.group()) if found else ""


@lru_cache(maxsize=1024)
def _image(container: str) -> str:
    """An id never changes its image, so one read is enough."""
    docker = _read(DOCKER / container / "config.v2.json")
    settings = docker.get("Config")
    if isinstance(settings, dict):
        return str(settings.get("Image", ""))
    annotations = _read(CONTAINERD / container / "config.json").get("annotations")
    if isinstance(annotations, dict):
        return str(annotations.get("io.kubernetes.cri.image-name", ""))
    return ""


def _read(path: Path) -> dict[str, object]:
    try:
        if path.stat().st_size > _SIZE_LIMIT:
            return {}
        content = json.loads(path.read_text())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}
