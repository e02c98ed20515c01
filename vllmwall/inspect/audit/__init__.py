"""`vllmwall audit`: security findings in live workloads, beyond their open ports.

`collect` reads the processes; `checks` and `judge` are pure; `rules` holds the tables (knobs.toml,
cves.toml); `output` writes the answer and SARIF; `run` joins them.
"""
