"""torch.distributed: torchrun and other launchers, their ranks, and plain training scripts.

Facts: torch 2.13 seen live. A rank has no title and no flag of its own; it is recognized by
the environment that its launcher set, or by the thread names of torch's collective libraries.
"""

from __future__ import annotations

from collections.abc import Sequence

from vllmwall.model import Label, Listener, Role, Stack
from vllmwall.recognize.fingerprints import (
    SOMAXCONN_BACKLOG,
    TORCH_THREADS,
    asked_for_most,
    library_label,
)
from vllmwall.recognize.names import script_name
from vllmwall.recognize.row_file import table
from vllmwall.recognize.stack_rules import (
    Candidate,
    Claim,
    ListenerContext,
    StackRules,
    WorkloadTree,
    label,
    unknown,
)

_AGENT_SCRIPTS = frozenset({"torchrun", "accelerate-launch", "deepspeed"})
_AGENT_MODULES = (
    "torch.distributed.run",
    "torch.distributed.launch",
    "accelerate.commands.launch",
    "deepspeed.launcher.runner",
    "deepspeed.launcher.launch",
)
_RANK = frozenset({"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"})
_DEBUG_PORT = 25999  # torch/distributed/debug/__init__.py


def claim(candidate: Candidate) -> Claim | None:
    """A launcher, or a process that takes part in a process group."""
    if _is_agent(candidate):
        return Claim(Stack.TORCH, "agent", launched=True)
    if candidate.has_thread(*TORCH_THREADS):
        return Claim(Stack.TORCH, "rank")
    in_group = candidate.is_python and candidate.process.env.keys() >= _RANK
    if in_group and candidate.may_have("torch") and not _serves_web(candidate):
        return Claim(Stack.TORCH, "rank", guess=True)
    return None


def _serves_web(candidate: Candidate) -> bool:
    """Operators of clusters put RANK into every container: a notebook has it too."""
    known = table()
    return known.is_companion(candidate) or known.web_server(candidate) is not None


def claim_by_listeners(candidate: Candidate, listeners: Sequence[Listener]) -> Claim | None:
    """Torch is mapped and something asked for the longest queue: its threads come later.

    Where neither libraries nor threads could be read, a Python that calls listen(-1) is enough:
    Python's own servers never do.
    """
    nothing_read = candidate.process.libraries is None and not candidate.process.threads
    if not candidate.is_python or not (nothing_read or candidate.has("torch")):
        return None
    if candidate.has_thread("tokio"):
        return None
    if any(one.backlog == SOMAXCONN_BACKLOG for one in listeners):
        return Claim(Stack.TORCH, "rank")
    return None


def _is_agent(candidate: Candidate) -> bool:
    command = candidate.command
    if candidate.process.comm == "pt_elastic" or command.name in _AGENT_SCRIPTS:
        return True
    if command.name == "accelerate":
        return command.words[:1] == ("launch",)
    return any(command.runs(module) for module in _AGENT_MODULES)


def name(tree: WorkloadTree) -> str:
    """The training script."""
    command = tree.candidate(tree.root).command
    return script_name((command.script, *command.args), "torch")


def label_listener(context: ListenerContext) -> Label:
    """The role of one listener of a torch job."""
    if context.is_unix:
        return unknown(context)
    return library_label(context) or _store(context) or _debug(context) or unknown(context)


def _store(context: ListenerContext) -> Label | None:
    """A wildcard listener of a launcher, or on the port where the ranks meet."""
    listener = context.listener
    port = context.process.env.get("MASTER_PORT")
    if not listener.is_wildcard:
        return None
    if str(listener.port) == port:
        return label(Role.TCPSTORE, 0.8, ("environment", f"MASTER_PORT {port}"))
    nothing_seen = listener.backlog is None and listener.queue_limit is None
    if context.part == "agent" and (nothing_seen or asked_for_most(context)):
        return label(Role.TCPSTORE, 0.7, ("tree", "launcher"), ("address", "wildcard"))
    return None


def _debug(context: ListenerContext) -> Label | None:
    if context.listener.port == _DEBUG_PORT:
        return label(Role.DEBUG, 0.6, ("default-port", f"{_DEBUG_PORT} torch debug server"))
    return None


RULES = StackRules(
    Stack.TORCH,
    claim,
    label_listener,
    name,
    _AGENT_SCRIPTS | {"torch", "accelerate", "pt_elastic"},
    claim_by_listeners,
)
