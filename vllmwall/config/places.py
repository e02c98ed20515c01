"""Where a configuration lies."""

from pathlib import Path

DEFAULT_PATH = Path("/etc/vllmwall/vllmwall.toml")
DROP_INS = "conf.d"
