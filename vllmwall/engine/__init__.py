"""The engine that keeps walls right. It owns no clock and no socket."""
