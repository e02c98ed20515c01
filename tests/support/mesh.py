"""A service mesh's sidecar: NAT redirects every port to it, and it dials the first one itself."""

from __future__ import annotations

import sys

from tests.support.lab import Host

PORT = 15006
REDIRECT_ALL = """table inet mesh {
    chain prerouting {
        type nat hook prerouting priority -100
        meta l4proto tcp redirect to :15006
    }
}
"""
_PROXY = r"""
import socket, struct, threading
server = socket.create_server(("::", 15006), family=socket.AF_INET6, dualstack_ipv6=True)
print("ready", flush=True)
def pump(one, other):
    try:
        while data := one.recv(65536):
            other.sendall(data)
    except OSError:
        pass
    for each in (one, other):
        try:
            each.shutdown(2)
        except OSError:
            pass
while True:
    client, _ = server.accept()
    mapped = client.getsockname()[0].startswith("::ffff:")
    if mapped:  # SO_ORIGINAL_DST
        raw = client.getsockopt(socket.SOL_IP, 80, 16)
        source, to = "127.0.0.6", socket.inet_ntop(socket.AF_INET, raw[4:8])
    else:  # IP6T_SO_ORIGINAL_DST
        raw = client.getsockopt(socket.IPPROTO_IPV6, 80, 28)
        source, to = "::1", socket.inet_ntop(socket.AF_INET6, raw[8:24])
    port = struct.unpack("!H", raw[2:4])[0]
    try:
        server_side = socket.create_connection((to, port), 3, (source, 0))
    except OSError:
        client.close()
        continue
    for pair in ((client, server_side), (server_side, client)):
        threading.Thread(target=pump, args=pair, daemon=True).start()
"""


def sidecar(host: Host) -> None:
    """Start the proxy, and let NAT redirect to it what comes over TCP."""
    process = host.popen([sys.executable, "-c", _PROXY])
    assert process.stdout is not None
    assert "ready\n" == process.stdout.readline()
    host.run(["nft", "-f", "-"], stdin=REDIRECT_ALL)


def talks(host: Host, address: str, port: int) -> str:
    """What comes back from there: a proxy accepts before it asks anybody."""
    try:
        with host.dial(address, port, timeout=0.6) as made:
            made.sendall(b"hello")
            return "answer" if made.recv(5) == b"hello" else "closed"
    except OSError as error:
        return type(error).__name__
