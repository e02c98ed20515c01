"""`vllmwall prove`: real packets against the active walls.

It trusts neither the daemon nor the table: it sends packets from an untrusted address to every
listener, through the hook that such packets pass. No workload notices, and nothing is left behind.
"""

from vllmwall.inspect.prove.harness import ProveError
from vllmwall.inspect.prove.question import Question, question_of
from vllmwall.inspect.prove.report import ProbeReport, Proof, proof_of, summary
from vllmwall.inspect.prove.run import prove
from vllmwall.inspect.prove.verdicts import ProbeOutcome

__all__ = [
    "ProbeOutcome",
    "ProbeReport",
    "Proof",
    "ProveError",
    "Question",
    "proof_of",
    "prove",
    "question_of",
    "summary",
]
