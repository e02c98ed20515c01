"""Real packets against the walls that stand: what `vllmwall prove` does.

It trusts neither the daemon nor the table: a stranger of its own making knocks at every listener,
through the hook that a stranger's packets meet. No workload notices, and nothing stays behind.
"""

from vllmwall.inspect.prove.errors import ProveError
from vllmwall.inspect.prove.run import PATIENCE, Finding, Question, prove
from vllmwall.inspect.prove.verdicts import Outcome

__all__ = ["PATIENCE", "Finding", "Outcome", "ProveError", "Question", "prove"]
