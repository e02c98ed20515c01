"""Weak settings of the workloads on this node, beyond their open ports: `vllmwall audit`.

`collect` reads processes, `checks` and `judge` are pure, `rules` holds the findings (knobs.toml,
cves.toml), `output` is for machines, `run` combines them.
"""
