"""The verdict of our table, as the kernel lists it, on one packet: the engine of `explain`. Pure.

Promises the kernel's own verdict, or none: an expression, declaration or element on the packet's
way that it does not understand ends in `NotUnderstoodError`, never in a guess. What depends
on the number of earlier packets (limits, connection counts) is answered with ``depends``.

It evaluates what the kernel holds and not what `ruleset` would write: so it names a rule that
another program added too. tests/kernel/enforce/test_evaluator.py compares it with the kernel.
"""

from vllmwall.enforce.evaluator.packet import (
    Judgement,
    NotUnderstoodError,
    Packet,
    Socket,
    Step,
    Verdict,
)
from vllmwall.enforce.evaluator.table import Table, read_table
from vllmwall.enforce.evaluator.traversal import evaluate, refused_by_first_port
from vllmwall.enforce.nftables.objects import Meaning

__all__ = [
    "Judgement",
    "Meaning",
    "NotUnderstoodError",
    "Packet",
    "Socket",
    "Step",
    "Table",
    "Verdict",
    "evaluate",
    "read_table",
    "refused_by_first_port",
]
