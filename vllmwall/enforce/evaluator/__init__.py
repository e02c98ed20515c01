"""What our table, as the kernel lists it, does to one packet: the engine of `explain`. Pure.

Promises the kernel's own verdict, or none: whatever expression, declaration or element on the
packet's way it does not understand ends in `NotUnderstoodError`, never in a guess. What depends
on how many packets came before (limits, connection counts) is answered with ``depends``.

It reads what the kernel holds and not what `ruleset` would write: so it tells of a rule that
somebody else put there too. tests/kernel/enforce/test_evaluator.py holds it against the kernel.
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
from vllmwall.enforce.evaluator.traversal import evaluate

__all__ = [
    "Judgement",
    "NotUnderstoodError",
    "Packet",
    "Socket",
    "Step",
    "Table",
    "Verdict",
    "evaluate",
    "read_table",
]
