"""What else is wrong with the workloads of this node, beyond their open ports.

`reading` looks at processes, `checks` and `judge` are pure, `table` holds what is looked for
(knobs.toml, cves.toml), `answer` is for machines, `whole` puts them together.
"""
