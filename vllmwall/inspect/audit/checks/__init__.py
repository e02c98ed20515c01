"""The checks that knobs.toml names: pure functions from a subject to a result.

To add one, write the function in a module of this package and add it to `CHECKS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from vllmwall.inspect.audit.checks import api, host, ray, switches, weights
from vllmwall.inspect.audit.checks.host import Check
from vllmwall.model import Role

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
    "privileged": host.of_container(host.all_capabilities),
    "capabilities": host.of_container(host.more_capabilities),
    "writable-root": host.of_container(lambda one: "/ is mounted rw" if one.writable_root else ""),
    "new-privileges": host.of_container(
        lambda one: "" if one.no_new_privileges else "NoNewPrivs is 0"
    ),
    "seccomp": host.of_container(lambda one: "Seccomp is 0" if one.seccomp == 0 else ""),
    "host-pid": host.of_container(
        lambda one: "its pid namespace is the host's" if one.host_pid else ""
    ),
    "host-ipc": host.of_container(
        lambda one: "its ipc namespace is the host's" if one.host_ipc else ""
    ),
    "runtime-socket": host.of_container(
        lambda one: f"mounted: {', '.join(one.runtime_sockets)}" if one.runtime_sockets else ""
    ),
    "tcpstore": host.tcpstore,
    "ray-dashboard": ray.asks_for_no_token(Role.RAY_DASHBOARD),
    "ray-client": ray.asks_for_no_token(Role.RAY_CLIENT_SERVER),
    "rdma": host.rdma,
    "allowed-model": weights.allowed_model,
    "weights-checksum": weights.checksum,
    "weights-writable": weights.writable,
    "weights-pickle": weights.pickle,
    "weights-unpinned": weights.unpinned,
}
