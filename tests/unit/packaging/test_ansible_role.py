"""The Ansible role: its playbook parses, its linter is content, what it writes loads."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from vllmwall.config import load

ROOT = Path(__file__).parents[3]
ANSIBLE = ROOT / "packaging" / "ansible"
ROLE = ANSIBLE / "roles" / "vllmwall"
TOOLS = ROOT / ".cache" / "cloud" / "bin"
PATH = f"{TOOLS}:{os.environ['PATH']}"


def run(*argv: str) -> str:
    if shutil.which(argv[0], path=PATH) is None:
        pytest.skip(f"no {argv[0]}: tests/setup/cloud .cache/cloud fetches it")
    environment = {**os.environ, "PATH": PATH, "ANSIBLE_NOCOLOR": "1", "LANG": "C.UTF-8"}
    done = subprocess.run(
        argv, cwd=ANSIBLE, env=environment, capture_output=True, text=True, check=False
    )
    assert 0 == done.returncode, done.stdout + done.stderr
    return done.stdout


def test_the_playbook_parses() -> None:
    """With the example of an inventory."""
    run("ansible-playbook", "--syntax-check", "-i", "inventory.example.yml", "site.yml")


def test_the_linter_is_content() -> None:
    """ansible-lint's strictest profile."""
    run("ansible-lint", "--offline", "--profile", "production", "-q", ".")


def test_what_it_writes_loads(tmp_path: Path) -> None:
    """Beside the package's own file, to which its peers are added."""
    peers = ["10.0.0.0/24", "fd00:10::/64"]
    written = tmp_path / "conf.d" / "50-ansible.toml"
    written.parent.mkdir()
    (tmp_path / "vllmwall.toml").write_text("[peers]\ncidrs = ['192.0.2.7/32']\n")
    values = json.dumps(
        {"vllmwall_peers": peers, "vllmwall_config": "[policy]\nmetrics = ['peers']"}
    )
    arguments = f"src={ROLE / 'templates/ansible.toml.j2'} dest={written} mode=0644"
    local = ["-i", "localhost,", "-c", "local", "localhost"]
    local += ["-e", f"ansible_python_interpreter={sys.executable}"]
    run("ansible", *local, "-m", "ansible.builtin.template", "-a", arguments, "-e", values)
    found = {str(one) for one in load(tmp_path / "vllmwall.toml").peers.cidrs}
    assert {"192.0.2.7/32", *peers} == found


def test_a_reload_is_confirmed_by_a_new_connection_only() -> None:
    """In this order; the one that asked for it would outlive any wall."""
    text = (ROLE / "tasks/reload.yml").read_text()
    steps = ("reload --confirm", "reset_connection", "wait_for_connection", "vllmwall confirm")
    places = [text.index(step) for step in steps]
    assert sorted(places) == places
