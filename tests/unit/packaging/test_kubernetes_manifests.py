"""The DaemonSet is valid, asks for no more than the unit has, and says nothing that is not so."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml

from vllmwall.config import load
from vllmwall.model import Mode

ROOT = Path(__file__).parents[3]
KUBERNETES = ROOT / "packaging" / "kubernetes"
PATH = f"{ROOT / '.cache/cloud/bin'}:{os.environ['PATH']}"
CONFIGURATIONS = ("base", "audit")


def tool(name: str) -> str:
    found = shutil.which(name, path=PATH)
    if found is None:
        pytest.skip(f"no {name}: tests/setup/cloud .cache/cloud fetches it")
    return found


def built(name: str) -> dict[str, dict[str, object]]:
    """What kustomize makes of a folder, by kind."""
    command = [tool("kubectl"), "kustomize", str(KUBERNETES / name)]
    text = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    return {one["kind"]: one for one in yaml.safe_load_all(text)}


def pod(objects: dict[str, dict[str, object]]) -> dict[str, object]:
    return objects["DaemonSet"]["spec"]["template"]["spec"]  # type: ignore[index,no-any-return]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_map_that_is_made_is_the_map_that_is_mounted(name: str) -> None:
    """Its name holds a hash, so a changed configuration is a rollout."""
    objects = built(name)
    volumes = {one["name"]: one for one in pod(objects)["volumes"]}  # type: ignore[attr-defined]
    made = objects["ConfigMap"]["metadata"]["name"]  # type: ignore[index]
    assert made == volumes["configuration"]["configMap"]["name"]
    assert re.fullmatch(r"vllmwall-\w{10}", str(made))


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_kubernetes_takes_it(name: str, tmp_path: Path) -> None:
    """By the schemas of its API, with no field that it does not know."""
    validate = tool("kubernetes-validate")
    file = tmp_path / "all.yaml"
    file.write_text(yaml.safe_dump_all(built(name).values()))
    done = subprocess.run(
        [validate, "--strict", str(file)], capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr


def test_it_has_nothing_that_the_unit_has_not() -> None:
    """Nine capabilities at most, and never privileged."""
    container = pod({"DaemonSet": daemonset()})["containers"][0]  # type: ignore[index]
    context = container["securityContext"]
    unit = (ROOT / "systemd/vllmwall.service").read_text()
    allowed = re.search(r"^CapabilityBoundingSet=(.*)$", unit, re.MULTILINE)
    assert allowed is not None
    added = {f"CAP_{one}" for one in context["capabilities"]["add"]}
    assert added <= set(allowed[1].split())
    assert ["ALL"] == context["capabilities"]["drop"]
    assert "privileged" not in context
    assert context["readOnlyRootFilesystem"]


def test_no_folder_of_a_config_map_is_mounted() -> None:
    """The kubelet makes it writable by all, and such a one the daemon does not believe."""
    container = pod({"DaemonSet": daemonset()})["containers"][0]  # type: ignore[index]
    mounts = {one["name"]: one for one in container["volumeMounts"]}
    assert "vllmwall.toml" == mounts["configuration"]["subPath"]


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_configurations_load(name: str) -> None:
    """And say what their folder is called."""
    config = load(KUBERNETES / name / "vllmwall.toml")
    assert (name == "audit") == (config.mode is Mode.AUDIT)


def test_who_drops_nothing_is_not_waited_for() -> None:
    """Else no pod would ever be ready while auditing."""
    assert "readinessProbe" in pod(built("base"))["containers"][0]  # type: ignore[index]
    assert "readinessProbe" not in pod(built("audit"))["containers"][0]  # type: ignore[index]


@pytest.mark.parametrize(("status", "alive"), [(0, True), (5, True), (3, False), (1, False)])
def test_alive_is_who_answers(status: int, alive: bool, tmp_path: Path) -> None:
    """A wall that is not as wanted is no reason to end the daemon that works on it."""
    program = tmp_path / "vllmwall"
    program.write_text(f"#!/bin/sh\nexit {status}\n")
    program.chmod(0o755)
    container = pod({"DaemonSet": daemonset()})["containers"][0]  # type: ignore[index]
    for probe in ("startupProbe", "livenessProbe"):
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}"}
        done = subprocess.run(container[probe]["exec"]["command"], env=environment, check=False)
        assert alive == (done.returncode == 0)


def test_the_yaml_is_clean() -> None:
    """By yamllint."""
    command = [tool("yamllint"), "--strict", "--config-file", str(KUBERNETES / ".yamllint")]
    folders = [str(KUBERNETES), str(ROOT / "packaging" / "ansible")]
    done = subprocess.run([*command, *folders], capture_output=True, text=True, check=False)
    assert (0, "") == (done.returncode, done.stdout)


def test_the_containerfile_is_clean() -> None:
    """By hadolint."""
    folder = ROOT / "packaging" / "container"
    command = [tool("hadolint"), "--config", str(folder / "hadolint.yaml")]
    done = subprocess.run(
        [*command, str(folder / "Containerfile")], capture_output=True, text=True, check=False
    )
    assert (0, "") == (done.returncode, done.stdout)


def daemonset() -> dict[str, object]:
    text = (KUBERNETES / "base/daemonset.yaml").read_text()
    return yaml.safe_load(text)  # type: ignore[no-any-return]
