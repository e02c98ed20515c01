"""The part of systemd's Python bindings that vllmwall uses, for interpreters without them.

Plain sockets, no library: what is sent is documented at sd_notify(3) and
https://systemd.io/JOURNAL_NATIVE_PROTOCOL/.
"""
