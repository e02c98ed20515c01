"""The real control socket, with a daemon behind it that guards whatever asks."""

import select
import sys
from pathlib import Path

from systemd import daemon
from vllmwall.api import server

path = Path(sys.argv[1])
path.parent.mkdir(exist_ok=True)
control = server.ControlServer(path, lambda command, arguments: {"guarded": True})
daemon.notify("READY=1")
while True:
    poll = select.poll()
    for descriptor, events in control.descriptors().items():
        poll.register(descriptor, events)
    for descriptor, _ in poll.poll():
        control.ready(descriptor)
