"""The reference page of the metrics: ``python packaging/metrics_docs.py``.

Writes docs/reference/metrics.md from the definitions; a test fails when it is out of date.
"""

from __future__ import annotations

from pathlib import Path

from vllmwall.api.metrics.definitions import DEFINITIONS
from vllmwall.engine.event_keys import EventKey
from vllmwall.engine.histograms import BOUNDS

PAGE = Path(__file__).parents[1] / "docs" / "reference" / "metrics.md"
_HEAD = """\
# Metrics

<!-- Written by `make docs`; edit vllmwall/api/metrics/definitions.py instead. -->

The metrics for Prometheus, once [metrics are switched on](../how-to/metrics-and-alerts.md).
Labels that are no name of ours (`netns`, `source`) have as many values as the node has network
namespaces with a wall, and the configuration sources of peers: no stranger and no port becomes a
label, so no outsider can make the number of time series grow.
"""


def reference() -> str:
    """docs/reference/metrics.md."""
    lines = [*_HEAD.splitlines(), "", "| metric | kind | labels | meaning |", "|---|---|---|---|"]
    for one in DEFINITIONS:
        labels = ", ".join(f"`{label}`" for label in one.labels) or "none"
        lines.append(f"| `{one.name}` | {one.kind} | {labels} | {one.help} |")
    bounds = ", ".join(f"{bound:g}" for bound in BOUNDS)
    lines += ["", f"Bounds of the histograms, in seconds: {bounds}.", ""]
    lines += [
        f"Kinds of `vllmwall_events_total`: {', '.join(sorted(one.key for one in EventKey))}."
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(reference())
