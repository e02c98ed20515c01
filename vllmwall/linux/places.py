"""Where the files of vllmwall itself lie, as hier(7) wants it."""

from pathlib import Path

CONFIGURATION = Path("/etc/vllmwall/vllmwall.toml")
DROP_INS = "conf.d"  # beside the configuration
RUNTIME_DIRECTORY = Path("/run/vllmwall")
STATE_DIRECTORY = Path("/var/lib/vllmwall")
CONTROL_SOCKET = RUNTIME_DIRECTORY / "control.sock"
SAVED_WALL = STATE_DIRECTORY / "boot.nft"
