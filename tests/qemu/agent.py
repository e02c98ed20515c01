"""Runs commands for the test in a machine that it has no other way into.

Run by the machine's own Python as a unit of its own. A line of JSON is a question or an answer;
the first line of each boot says which boot it is.
"""

import base64
import glob
import json
import subprocess
import time
from pathlib import Path


def opened() -> object:
    """The only serial port of the machine's that is no console, as soon as there is one."""
    while True:
        for port in glob.glob("/dev/vport*"):  # noqa: PTH207 older than 3.13
            try:
                return open(port, "r+b", buffering=0)  # noqa: PTH123
            except OSError:
                pass
        time.sleep(0.05)


def answered(question: dict[str, object]) -> dict[str, object]:
    """What came of a command."""
    try:
        done = subprocess.run(
            question["argv"],  # type: ignore[call-overload]
            capture_output=True,
            stdin=subprocess.DEVNULL,
            timeout=float(question["timeout"]),  # type: ignore[arg-type]
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {"status": 127, "out": "", "err": repr(error)}
    out, err = (one.decode(errors="replace") for one in (done.stdout, done.stderr))
    return {"status": done.returncode, "out": out, "err": err}


def tell(port: object, line: dict[str, object]) -> None:
    """Say it whole: a port takes part of what is written."""
    left = json.dumps(line).encode() + b"\n"
    while left:
        left = left[port.write(left) :]  # type: ignore[attr-defined]


port = opened()
tell(port, {"boot": Path("/proc/sys/kernel/random/boot_id").read_text().strip()})
asked = b""
while True:
    asked += port.read(65536)  # type: ignore[attr-defined]
    *lines, asked = asked.split(b"\n")
    for one in lines:
        question = json.loads(one)
        if "write" in question:
            file = Path(question["write"])
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(base64.b64decode(question["data"]))
            tell(port, {"status": 0, "out": "", "err": ""})
        else:
            tell(port, answered(question))
