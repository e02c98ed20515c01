"""`vllmwall audit` on a node with real processes: what it finds, and what it never says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support.guarded import RANK, Guarded, Program, eventually, guarded
from tests.support.lab import Lab

CANARY = "sk-CANARY-51c9"
COMMIT = "0123456789" * 4
PYTHON = "/usr/bin/python3"  # one that other users may run

# What is wrong, and the words and variables that put it right, on vLLM 0.31 and 0.33.
BAD_ARGS = f"""serve org/tiny --port 8000 --api-key {CANARY} --trust-remote-code
 --enable-tokenizer-info-endpoint --profiler-config {{"profiler":"torch"}} --tool-server demo
 --enable-prompt-embeds --allowed-local-media-path / --trust-request-chat-template
 --enable-log-outputs --enable-fault-tolerance --hf-token={CANARY}"""
BAD_ENV = {
    "VLLM_SERVER_DEV_MODE": "1",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "1",
    "LMCACHE_INTERNAL_API_SERVER_ENABLED": "true",
    "SOME_OTHER_SECRET": CANARY,
}
GOOD_ARGS = f"""serve org/tiny --port 8000 --revision {COMMIT} --disable-fastapi-docs
 --allowed-media-domains example.org --host 127.0.0.1"""
GOOD_ENV = {
    "VLLM_API_KEY": CANARY,
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_HOST_IP": "192.0.2.1",
}
FOUND = {
    "CVE-2026-48746",
    "key-on-command-line",
    "lmcache-internal-api",
    "running-as-root",
    "trust-remote-code",
    "vllm-client-templates",
    "vllm-cors-any",
    "vllm-dev-mode",
    "vllm-docs-pages",
    "vllm-embeds",
    "vllm-host-ip",
    "vllm-insecure-serialization",
    "vllm-key-is-not-all",
    "vllm-local-media",
    "vllm-media-domains",
    "vllm-profiler",
    "vllm-request-logs",
    "vllm-runtime-lora",
    "vllm-tokenizer-info",
    "vllm-tool-server",
    "weights-unpinned",
}


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as found:
        yield found


@pytest.fixture
def node(lab: Lab, tmp_path: Path) -> Guarded:
    """A node; whether the daemon runs on it is for each test to say."""
    return Guarded(lab, tmp_path / "node")


def program(
    node: Guarded, args: str, env: Mapping[str, str], version: str, name: str = "vllm"
) -> Program:
    """A process started as vLLM is from a virtual environment, with packages beside it."""
    script = node.folder / "venv" / "bin" / name
    script.parent.mkdir(parents=True, exist_ok=True)
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    library = node.folder / "venv" / "lib" / "python3.11" / "site-packages"
    for package in (f"vllm-{version}", "starlette-0.50.0"):
        (library / f"{package}.dist-info").mkdir(parents=True, exist_ok=True)
    return node._program([str(script), *args.split()], {"PATH": os.environ["PATH"], **env})


def audit(node: Guarded, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The command as a person runs it."""
    command = [sys.executable, "-m", "vllmwall"]
    command += ["--socket", str(node.runtime / "control.sock"), "audit"]
    command += ["--config", str(node.config), "--only-namespace", node.lab.node.path, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def findings(node: Guarded) -> dict[str, dict[str, object]]:
    answer = json.loads(audit(node, "--json").stdout)
    return {one["id"]: one for one in answer["findings"]}


def two_networks(lab: Lab) -> None:
    lab.node.run(["ip", "link", "add", "data0", "type", "veth", "peer", "name", "data1"])
    lab.node.run(["ip", "address", "add", "198.51.100.1/24", "dev", "data0"])


def test_a_badly_started_server_has_every_finding_and_no_secret_is_said(node: Guarded) -> None:
    """Whatever is asked for, the values of keys stay where they are."""
    two_networks(node.lab)
    program(node, BAD_ARGS, BAD_ENV, "0.21.0").open("tcp", "0.0.0.0", 8000)
    assert FOUND == findings(node).keys()
    for form in ((), ("--why",), ("--json",), ("--sarif",), ("--fail-on", "never")):
        done = audit(node, *form)
        assert CANARY not in done.stdout + done.stderr
        assert (0 if "never" in form else 6) == done.returncode


def test_a_well_started_server_has_none_of_them(node: Guarded) -> None:
    """But that it runs as root, which every test does here."""
    two_networks(node.lab)
    program(node, GOOD_ARGS, GOOD_ENV, "0.33.0").open("tcp", "127.0.0.1", 8000)
    assert {"running-as-root"} == findings(node).keys()
    assert 0 == audit(node).returncode
    assert 6 == audit(node, "--fail-on", "medium").returncode


def test_a_settings_file_is_read_and_its_key_is_not_said(node: Guarded) -> None:
    """`vllm serve --config FILE`."""
    settings = node.folder / "settings.yaml"
    settings.write_text(f"api_key: {CANARY}\ntrust-remote-code: true\n")
    args = f"serve org/tiny --port 8000 --config {settings}"
    program(node, args, {}, "0.33.0").open("tcp", "0.0.0.0", 8000)
    found = findings(node)
    assert {"trust-remote-code", "vllm-key-is-not-all"} <= found.keys()
    assert {"vllm-no-api-key", "key-on-command-line"}.isdisjoint(found)
    assert CANARY not in json.dumps(found)


def test_a_wall_of_the_daemon_weighs_in(lab: Lab, tmp_path: Path) -> None:
    """A store on all interfaces is high where it is open, and only a note behind the wall."""
    node = Guarded(lab, tmp_path / "node")
    node.rank().open("tcp", "::", 29500)
    assert "high" == findings(node)["tcpstore-wildcard"]["severity"]
    with guarded(lab, tmp_path / "node"):
        found = findings(node)
        assert "info" == found["tcpstore-wildcard"]["severity"]
        node.ask("down")
        assert "high" == findings(node)["tcpstore-wildcard"]["severity"]


def test_an_api_beside_a_reverse_proxy_is_told(node: Guarded) -> None:
    """The proxy's checks do not count for whoever goes around it."""
    nginx = node.folder / "nginx"
    nginx.write_text(f"#!{PYTHON}\n{RANK}")
    nginx.chmod(0o755)
    server = program(node, "serve org/tiny --port 8000", {}, "0.33.0")
    server.open("tcp", "0.0.0.0", 8000)
    assert "api-around-proxy" not in findings(node)
    node._program([str(nginx), "2048"], {**os.environ}).open("tcp", "0.0.0.0", 443)
    assert "nginx on port 443" in str(findings(node)["api-around-proxy"]["seen"])
    server.close("tcp", "0.0.0.0", 8000)
    server.open("tcp", "127.0.0.1", 8000)
    assert "api-around-proxy" not in findings(node)


def test_a_model_must_be_allowed_and_its_weights_the_approved_ones(node: Guarded) -> None:
    """audit.allowed_models and audit.checksums."""
    model, sums = node.folder / "org" / "llama", node.folder / "sums"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_text("weights")
    digest = subprocess.run(
        ["sha256sum", str(model / "model.safetensors")], capture_output=True, text=True, check=True
    ).stdout
    sums.write_text(digest)
    sums.chmod(0o600)
    program(node, f"serve {model} --port 8000", {}, "0.33.0").open("tcp", "127.0.0.1", 8000)
    node.configure(f"[audit]\nallowed_models = ['{node.folder}/org/*']\nchecksums = '{sums}'\n")
    names = {"model-not-allowed", "weights-checksum", "weights-pickle", "weights-writable"}
    assert names.isdisjoint(findings(node))
    node.configure(f"[audit]\nallowed_models = ['meta-llama/*']\nchecksums = '{sums}'\n")
    (model / "model.safetensors").write_text("poisoned")
    (model / "model.safetensors").chmod(0o666)
    assert names - {"weights-pickle"} <= findings(node).keys()
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    assert names <= findings(node).keys()
    sums.chmod(0o666)
    assert "no weights were checked" in audit(node).stdout


def test_what_is_accepted_does_not_fail(node: Guarded) -> None:
    """And is counted."""
    program(node, "serve org/tiny --port 8000", {}, "0.33.0").open("tcp", "0.0.0.0", 8000)
    assert 6 == audit(node).returncode
    node.configure("[audit]\naccepted = ['vllm-no-api-key@tiny until 2999-01-01', 'vlm-x']\n")
    done = audit(node)
    assert 0 == done.returncode
    assert "1 finding accepted" in done.stdout
    assert "vlm-x is not the id of a finding" in done.stdout


def test_an_open_rdma_device_is_told(node: Guarded) -> None:
    """netfilter does not see what goes through it."""
    server = node.folder / "vllm"
    server.write_text(f"#!{sys.executable}\n{RANK}")
    server.chmod(0o755)
    device = node.folder / "infiniband"
    device.mkdir()
    (device / "uverbs0").touch()
    program = node._program(
        ["sh", "-c", f'exec 9<{device}/uverbs0; exec "$0" serve m', str(server)], {**os.environ}
    )
    program.open("tcp", "127.0.0.1", 8000)
    assert f"open: {device}/uverbs0" == findings(node)["rdma-in-use"]["seen"]


CONTAINER = """
set -e
box=$1 script=$2 mode=$3
mount -t tmpfs box "$box"
mkdir -p "$box/up/srv" "$box/work" "$box/root"
cp "$script" "$box/up/srv/vllm"
mount -t overlay -o "lowerdir=/,upperdir=$box/up,workdir=$box/work" overlay "$box/root"
mount --rbind /dev "$box/root/dev"
cd "$box/root"
if [ "$mode" = bad ]; then
    mkdir -p run
    /usr/bin/python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind("run/docker.sock")'
    mkdir -p srv/inside
    ln -s /srv/inside run/podman
    mv run/docker.sock srv/inside/podman.sock
    mount --rbind /proc proc
    pivot_root . mnt
    exec /srv/vllm serve org/tiny --port 8000
fi
mount -t proc proc proc
mount -o remount,bind,ro .
pivot_root . mnt
umount -l mnt
exec setpriv --reuid 1000 --regid 1000 --clear-groups --bounding-set=-all --inh-caps=-all \
    --no-new-privs /usr/bin/python3 -c '
import ctypes, os
code = ctypes.create_string_buffer(bytes((6, 0, 0, 0, 0, 0, 255, 127)))  # BPF_RET, RET_ALLOW
program = ctypes.create_string_buffer(16)
ctypes.memmove(program, (ctypes.c_uint64 * 2)(1, ctypes.addressof(code)), 16)
assert ctypes.CDLL(None).prctl(22, 2, program) == 0  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
os.execv("/srv/vllm", ["/srv/vllm", "serve", "org/tiny", "--port", "8000"])
'
"""


@pytest.mark.parametrize("mode", ["bad", "good"])
def test_a_container_is_judged_from_the_host(node: Guarded, mode: str) -> None:
    """By /proc alone: capabilities, mounts, namespaces, seccomp, the runtime's socket."""
    if not Path(PYTHON).exists():
        pytest.skip(f"no {PYTHON} here")
    box, script = node.folder / "box", node.folder / "vllm"
    box.mkdir()
    script.write_text(f"#!{PYTHON}\n{RANK}")
    script.chmod(0o755)
    apart = ["--pid", "--fork", "--ipc"] if mode == "good" else []
    argv = ["unshare", "--mount", *apart, "sh", "-c", CONTAINER, "sh"]
    node._program([*argv, str(box), str(script), mode], {**os.environ}).open("tcp", "0.0.0.0", 8000)
    every = findings(node)
    found = {name for name in every if name.startswith(("container", "running"))}
    if mode == "bad":  # an absolute link of the container, which leads nowhere on the host
        assert "mounted: /srv/inside/podman.sock" == every["container-runtime-socket"]["seen"]
    expected = {
        "container-privileged",
        "container-writable-root",
        "container-new-privileges",
        "container-no-seccomp",
        "container-host-pid",
        "container-host-ipc",
        "container-runtime-socket",
        "running-as-root",
    }
    assert (expected if mode == "bad" else set()) == found


@pytest.mark.parametrize("columns", [80, 120])
def test_the_table_fits_a_terminal(node: Guarded, columns: int) -> None:
    """No line is longer than it is wide, with the reasons too."""
    program(node, BAD_ARGS, BAD_ENV, "0.21.0").open("tcp", "0.0.0.0", 8000)
    command = f"stty cols {columns}; {sys.executable} -m vllmwall --socket /none audit --why"
    command += f" --config /none --only-namespace {node.lab.node.path}"
    shown = subprocess.run(
        ["script", "-qec", command, "/dev/null"],
        env={**os.environ, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    ).stdout
    plain = re.sub(r"\x1b\[[0-9;]*m", "", shown)
    assert plain != shown
    assert "critical" in plain
    assert "Change: " in plain
    assert max(len(line) for line in plain.splitlines()) <= columns


def test_a_renamed_server_is_unknown_and_not_wrong(node: Guarded) -> None:
    """A child of a server that died: neither flags nor variables can be read."""
    script = node.folder / "vllm"
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    argv = [str(script), "serve", "org/tiny", "--api-key", CANARY]
    environment = {**os.environ, **BAD_ENV, "TITLE": "VLLM::APIServer_0"}
    node._program(argv, environment).open("tcp", "0.0.0.0", 8000)
    answer = json.loads(audit(node, "--json").stdout)
    found = {one["id"] for one in answer["findings"]}
    assert not any(name.startswith("vllm") for name in found), found
    assert {"vllm-no-api-key", "vllm-dev-mode"} <= {one["id"] for one in answer["unchecked"]}
    assert "not checked, because" in audit(node).stdout


def test_only_the_namespaces_that_are_asked_for_are_audited(node: Guarded) -> None:
    """--only-namespace."""
    program(node, BAD_ARGS, BAD_ENV, "0.21.0").open("tcp", "0.0.0.0", 8000)
    elsewhere = ["--only-namespace", node.lab.peer.path, "--json"]
    command = [sys.executable, "-m", "vllmwall", "--socket", "/none", "audit", "--config"]
    done = subprocess.run(
        [*command, "/none", *elsewhere], capture_output=True, text=True, check=True
    )
    assert 0 == json.loads(done.stdout)["workloads"]


def test_what_a_server_forks_is_no_server_of_its_own(node: Guarded) -> None:
    """Before vLLM 0.10.1 its children look exactly like it."""
    script = node.folder / "vllm"
    script.write_text(f"#!{sys.executable}\n{RANK}")
    script.chmod(0o755)
    node._program([str(script), "serve", "org/tiny"], {**os.environ, "FORK_FIRST": "1"})
    assert 1 == json.loads(audit(node, "--json").stdout)["servers"]


def test_only_root_may_audit() -> None:
    """Half of the truth would be worse than none."""
    command = ["unshare", "--user", sys.executable, "-m", "vllmwall", "audit"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (4, "") == (done.returncode, done.stdout)
    assert "root" in done.stderr


def test_a_node_without_workloads_has_nothing_to_audit(node: Guarded) -> None:
    """And says so."""
    done = audit(node)
    assert (0, "No workload runs here: nothing to audit") == (
        done.returncode,
        done.stdout.splitlines()[0],
    )
    eventually(lambda: json.loads(audit(node, "--json").stdout)["servers"] == 0, "an empty answer")
