"""`vllmwall explain` as an operator runs it."""

from __future__ import annotations

import os
import subprocess
import sys

from pydantic import TypeAdapter

from tests.support.guarded import Guarded
from vllmwall.api.explain.answer import Explanation


def vllmwall(node: Guarded, *arguments: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line from outside the node's namespace, as on a host with containers."""
    words = [sys.executable, "-m", "vllmwall", "--socket", str(node.runtime / "control.sock")]
    words += ["explain", *arguments]
    words += ["--config", str(node.config), "--only-namespace", node.lab.node.path]
    environment = {**os.environ, "PATH": f"{path}:{os.environ['PATH']}"} if path else None
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment)


def explain(node: Guarded, *arguments: str) -> Explanation:
    """The answer as its published shape has it."""
    done = vllmwall(node, *arguments, "--json")
    assert done.stdout, done.stderr
    answer = TypeAdapter(Explanation).validate_json(done.stdout)
    assert {"open": 0, "closed": 8}.get(answer.verdict, 9) == done.returncode
    return answer
