"""The checks that knobs.toml names: pure functions from a subject to a result.

To add one, write the function in a module of this package and add it to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vllmwall.inspect.audit.checks import api, host, switches, weights
from vllmwall.inspect.audit.rules import Rule
from vllmwall.inspect.audit.types import CheckResult, Requirements, Subject

Check = Callable[[Rule, Subject, Requirements], CheckResult]

CHECKS: Mapping[str, Check] = {
    "on": switches.is_on,
    "given": switches.is_given,
    "absent": switches.is_absent,
    "open-endpoints": api.open_endpoints,
    "profiler": api.profiler,
    "media-domains": api.media_domains,
    "media-redirects": api.media_redirects,
    "cors": api.cors,
    "tls": api.tls,
    "around-proxy": api.around_proxy,
    "grpc": api.grpc,
    "host-ip": api.host_ip,
    "admin-key-alone": api.admin_key_alone,
    "proxy-nodes": api.proxy_nodes,
    "secret-arguments": api.secret_arguments,
    "root": host.root,
    "privileged": host.privileged,
    "capabilities": host.capabilities,
    "writable-root": host.writable_root,
    "new-privileges": host.new_privileges,
    "seccomp": host.seccomp,
    "host-pid": host.host_pid,
    "host-ipc": host.host_ipc,
    "runtime-socket": host.runtime_socket,
    "tcpstore": host.tcpstore,
    "ray-dashboard": host.ray_dashboard,
    "ray-client": host.ray_client,
    "rdma": host.rdma,
    "allowed-model": weights.allowed_model,
    "weights-checksum": weights.checksum,
    "weights-writable": weights.writable,
    "weights-pickle": weights.pickle,
    "weights-unpinned": weights.unpinned,
}
