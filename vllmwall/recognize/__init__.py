"""Recognition: processes and listeners become workloads with roles.

Pure functions over frozen values: no clock, no file, no socket, and no state but the `Memo` that a
caller lends. To add a stack, write one file with its `StackRules` and add it to `_STACKS`.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllmwall.model import Node, Process, Recognition
from vllmwall.recognize import custom, kv, lmdeploy, ray, sglang, torch, transports, vllm
from vllmwall.recognize.claims import Known, is_claimed_alone
from vllmwall.recognize.definitions import WorkloadDefinition
from vllmwall.recognize.memo import Memo
from vllmwall.recognize.recognition import recognize_node
from vllmwall.recognize.rows import Row
from vllmwall.recognize.stack_rules import StackRules

# Where two stacks could claim one process the first counts, so the more specific comes first.
_STACKS: tuple[StackRules, ...] = (
    sglang.RULES,
    vllm.RULES,
    ray.RULES,
    lmdeploy.RULES,
    kv.MOONCAKE,
    kv.NIXL,
    kv.LMCACHE,
    torch.RULES,
    *transports.RULES,
    custom.RULES,
)


def is_claimed(
    process: Process, definitions: Sequence[WorkloadDefinition] = (), rows: tuple[Row, ...] = ()
) -> bool:
    """Whether a process that has just started is a workload, judged by that process alone."""
    return is_claimed_alone(process, Known(_STACKS, definitions, rows))


def recognize(
    node: Node,
    definitions: Sequence[WorkloadDefinition] = (),
    rows: tuple[Row, ...] = (),
    memo: Memo | None = None,
) -> Recognition:
    """Every workload of the node with a role for each of its listeners, and all other listeners.

    ``definitions`` and ``rows`` are those of the configuration. Workloads without listeners are
    included. Missing facts (backlogs, threads, command lines) make roles less exact, never public.
    With ``memo``, used for one configuration only, what has not changed is not judged again; the
    answer is the same.
    """
    return recognize_node(node, Known(_STACKS, definitions, rows), memo or Memo())
