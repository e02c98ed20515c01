"""The flags of the table, against the argument parser of a real vLLM."""

from __future__ import annotations

import json
import subprocess
import time
from pathlib import Path

import pytest

from vllmwall.inspect.audit.collect import Lookup, subjects
from vllmwall.inspect.audit.judge import judge
from vllmwall.inspect.audit.rules import cves, knobs
from vllmwall.inspect.audit.versions import is_within
from vllmwall.model import Node, Stack
from vllmwall.observe.processes import ProcessTable
from vllmwall.recognize import recognize

pytestmark = [pytest.mark.real, pytest.mark.vllm]

PYTHON = Path(__file__).parents[4] / ".venv-vllm/bin/python"
LIST = """
import json
try:
    from vllm.entrypoints.common.cli_args import make_arg_parser  # from 0.33 on
except ImportError:
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
from vllm.utils.argparse_utils import FlexibleArgumentParser
import vllm.envs
flags = [one for each in make_arg_parser(FlexibleArgumentParser())._actions
         for one in each.option_strings]
print(json.dumps([flags, sorted(vllm.envs.environment_variables)]))
"""
# Read by others in the same process, or gone from vLLM 0.32.
NOT_VLLMS = {"HF_HOME", "HF_HUB_CACHE", "HF_HUB_OFFLINE", "HOME", "XDG_CACHE_HOME"}
NOT_VLLMS |= {"LMCACHE_INTERNAL_API_SERVER_ENABLED", "VLLM_TORCH_PROFILER_DIR"}
NOT_VLLMS |= {"RAY_AUTH_MODE"}  # Ray's own, which vLLM starts


@pytest.fixture(scope="module")
def real() -> tuple[set[str], set[str]]:
    """The flags and variables that vLLM itself knows."""
    if not PYTHON.exists():
        pytest.skip("no real vLLM here")
    done = subprocess.run([PYTHON, "-c", LIST], capture_output=True, text=True, check=True)
    flags, variables = json.loads(done.stdout.splitlines()[-1])
    return {flag[2:] for flag in flags if flag.startswith("--")}, set(variables)


def test_every_flag_is_spelled_as_vllm_spells_it(real: tuple[set[str], set[str]]) -> None:
    """A flag that nobody has is a check that never finds anything."""
    named = {flag for cve in cves() if cve.package == "vllm" for flag in cve.flags}
    assert set() == (knobs().flags_of(Stack.VLLM) | named) - real[0]


def test_every_variable_is_spelled_as_vllm_spells_it(real: tuple[set[str], set[str]]) -> None:
    """The same of the environment."""
    assert set() == knobs().variable_names - real[1] - NOT_VLLMS


def test_no_other_flag_is_taken_for_the_beginning_of_ours(real: tuple[set[str], set[str]]) -> None:
    """``--model`` must not count as ``--model-loader-extra-config``: argparse takes it exactly."""
    known = knobs().flags_of(Stack.VLLM)
    for other in real[0] - known:
        fitting = [flag for flag in known if flag.startswith(other)]
        assert [] == fitting, f"--{other} is a flag of its own"


def test_a_real_servers_flags_variables_and_version_are_read(tmp_path: Path) -> None:
    """From the process alone, while it is still loading."""
    if not PYTHON.exists():
        pytest.skip("no real vLLM here")
    argv = [PYTHON.with_name("vllm"), "serve", str(tmp_path), "--port", "0", "--trust-remote-code"]
    with subprocess.Popen(
        argv,
        env={"PATH": "/usr/bin:/bin", "HF_HUB_OFFLINE": "1", "VLLM_SERVER_DEV_MODE": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as process:
        try:
            found = _ids(process.pid)
        finally:
            process.kill()
    assert {"vllm-dev-mode", "trust-remote-code"} <= found
    assert "weights-unpinned" not in found


def _ids(pid: int) -> set[str]:
    """The findings of one process, alone on its node."""
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        table = ProcessTable()
        seen = table.look_at(pid)
        if seen is not None and "serve" in seen.argv:
            node = Node({pid: seen}, ())
            [subject] = subjects(node, recognize(node).workloads, Lookup())
            assert is_within(subject.versions["vllm"], since="0.6", before="1")
            return {one.id for one in judge([subject]).findings}
        time.sleep(0.02)
    raise AssertionError("it did not start")
