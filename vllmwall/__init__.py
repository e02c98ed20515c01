"""vllmwall: a host firewall daemon for GPU nodes."""

__version__ = "0.1.0.dev0"
