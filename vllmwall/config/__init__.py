"""What the operator wrote: /etc/vllmwall/vllmwall.toml and conf.d/*.toml, checked and merged.

Promises a `Config` in which every value is usable, or a `ConfigError` that names every problem
with file, line, key, value and what is allowed. Imports pydantic, which takes 90 ms: the
command line must not import this package where an answer is due at once (`status`).
"""

from vllmwall.config.loading import DEFAULT_PATH, DROP_INS, load
from vllmwall.config.models import Config, PeersSection
from vllmwall.config.problems import ConfigError, Problem

__all__ = ["DEFAULT_PATH", "DROP_INS", "Config", "ConfigError", "PeersSection", "Problem", "load"]
