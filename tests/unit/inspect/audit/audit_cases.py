"""A table of servers, one pair for each row of the table of knobs: bad, and the same put right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from ipaddress import ip_address

from vllmwall.inspect.audit.collect.commands import without_secrets
from vllmwall.inspect.audit.rules import knobs
from vllmwall.inspect.audit.types import (
    CommandLine,
    Confinement,
    Environment,
    Place,
    Subject,
    Weights,
)
from vllmwall.model import Listener, Proto, Role, Stack
from vllmwall.recognize.commandline import read_flags

PARTS = {Stack.VLLM: "serve", Stack.SGLANG: "server", Stack.LMDEPLOY: "api_server"}
VERSIONS = {Stack.VLLM: ("vllm", "0.33.0"), Stack.LMDEPLOY: ("lmdeploy", "0.18.0")}
FULL = (1 << 41) - 1
DOCKER = 0xA80425FB


def place(address: str, port: int = 8000, role: Role = Role.API, *, walled: bool = False) -> Place:
    """A TCP listener."""
    return Place(role, Listener(7, Proto.TCP, port, ip_address(address)), walled)


WILD = place("0.0.0.0")
LOCAL = place("127.0.0.1")


def server(
    args: str = "",
    env: Mapping[str, str] | None = None,
    stack: Stack = Stack.VLLM,
    **fields: object,
) -> Subject:
    """A server whose command line and environment could be read whole."""
    known = knobs().flags_of(stack)
    words, found = without_secrets(tuple(args.split()), known)
    package, version = VERSIONS.get(stack, ("sglang", "0.5.23"))
    subject = Subject(
        workload="llama",
        stack=stack,
        pid=4711,
        part=PARTS.get(stack, ""),
        model="meta-llama/llama",
        command=CommandLine(read_flags(words, known), True, tuple(found), readable=True),
        environment=Environment(dict(env or {}), True),
        places=(WILD,),
        versions={package: version},
        confinement=Confinement(uid=1000),
        allowed_models=("meta-llama/*",),
    )
    return replace(subject, **fields)  # type: ignore[arg-type]


def container(**fields: object) -> Subject:
    """A server in a container that is confined as it should be."""
    confined = Confinement(
        uid=1000,
        container=True,
        effective=0,
        bounding=DOCKER,
        all_capabilities=FULL,
        seccomp=2,
    )
    return server(confinement=replace(confined, **fields))  # type: ignore[arg-type]


def sglang(args: str = "", **fields: object) -> Subject:
    return server(args, stack=Stack.SGLANG, **fields)


def lmdeploy(args: str = "", **fields: object) -> Subject:
    return server(args, stack=Stack.LMDEPLOY, **fields)


def internal(role: Role, address: str) -> Subject:
    return server(places=(place(address, 29500, role),))


def ray_node(version: str, mode: str | None, address: str = "192.0.2.1") -> Subject:
    """A head whose dashboard other hosts reach."""
    node = internal(Role.RAY_DASHBOARD, address)
    return replace(node, stack=Stack.RAY, versions={"ray": version}, ray_auth_mode=mode)


PINNED = "--revision " + "0123456789" * 4
PROXY = {"stack": Stack.LMDEPLOY, "part": "proxy", "model": ""}

# rule, bad, the same put right
CASES: tuple[tuple[str, Subject, Subject], ...] = (
    ("vllm-no-api-key", server(), server("--api-key K")),
    ("vllm-no-api-key", server(), server(env={"VLLM_API_KEY": "<set>"})),
    ("vllm-no-api-key", server(), server(places=(LOCAL,))),
    ("sglang-no-api-key", sglang(), sglang("--api-key K")),
    ("lmdeploy-no-api-key", lmdeploy(), lmdeploy("--api-keys K")),
    ("vllm-key-is-not-all", server("--api-key K"), server("--api-key K", places=(LOCAL,))),
    ("vllm-dev-mode", server(env={"VLLM_SERVER_DEV_MODE": "1"}), server()),
    ("vllm-dev-mode", server(env={"VLLM_SERVER_DEV_MODE": "1"}),
     server(env={"VLLM_SERVER_DEV_MODE": "0"})),
    ("vllm-profiler", server('--profiler-config {"profiler":"torch"}'), server()),
    ("vllm-profiler", server("--profiler-config.profiler torch"),
     server('--profiler-config {"profiler":null}')),
    ("vllm-profiler",
     server(env={"VLLM_TORCH_PROFILER_DIR": "/t"}, versions={"vllm": "0.15.0"}),
     server(env={"VLLM_TORCH_PROFILER_DIR": "/t"}, versions={"vllm": "0.16.0"})),
    ("vllm-tokenizer-info", server("--enable-tokenizer-info-endpoint"),
     server("--no-enable-tokenizer-info-endpoint")),
    ("vllm-media-domains", server(), server("--allowed-media-domains example.org")),
    ("vllm-media-domains", server(weights=Weights(multimodal=True)),
     server(weights=Weights(multimodal=False))),
    ("vllm-media-redirects", server("--allowed-media-domains example.org"),
     server("--allowed-media-domains example.org", {"VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0"})),
    ("vllm-host-ip", server(networks=("eth0 (192.0.2.1)", "ib0 (198.51.100.1)")),
     server(networks=("eth0 (192.0.2.1)",))),
    ("vllm-host-ip", server(networks=("eth0 (192.0.2.1)", "ib0 (198.51.100.1)")),
     server(env={"VLLM_HOST_IP": "198.51.100.1"}, networks=("a (192.0.2.1)", "b (192.0.2.2)"))),
    ("api-around-proxy", server(proxies=("nginx on port 443",)),
     server(proxies=("nginx on port 443",), places=(LOCAL,))),
    ("vllm-cors-any", server(versions={"vllm": "0.31.0"}), server(versions={"vllm": "0.32.0"})),
    ("vllm-cors-any", server('--allowed-origins ["*"]'),
     server('--allowed-origins ["https://x.example"]')),
    ("lmdeploy-cors-any", lmdeploy(), lmdeploy("--allow-origins https://x.example")),
    ("api-no-tls", server(public="1.2.3.4"), server("--ssl-certfile c", public="1.2.3.4")),
    ("api-no-tls", lmdeploy(public="1.2.3.4"), lmdeploy("--ssl", public="1.2.3.4")),
    ("api-no-tls", sglang(public="1.2.3.4"), sglang()),
    ("vllm-docs-pages", server(), server("--disable-fastapi-docs")),
    ("vllm-runtime-lora", server(env={"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}), server()),
    ("vllm-insecure-serialization", server(env={"VLLM_ALLOW_INSECURE_SERIALIZATION": "1"}),
     server()),
    ("trust-remote-code", server("--trust-remote-code"), server()),
    ("trust-remote-code", sglang("--trust-rem"), sglang()),
    ("trust-remote-code", lmdeploy("--trust_remote_code"), lmdeploy()),
    ("vllm-grpc-open", server("--grpc"), server("--grpc", places=(LOCAL,))),
    ("vllm-grpc-open", server("--grpc-port 9000"), server()),
    ("vllm-tool-server", server("--tool-server demo"), server()),
    ("vllm-embeds", server("--enable-prompt-embeds"), server()),
    ("vllm-local-media", server("--allowed-local-media-path /"), server()),
    ("vllm-client-templates", server("--trust-request-chat-template"), server()),
    ("vllm-request-logs", server("--enable-log-outputs"), server("--enable-log-requests false")),
    ("vllm-fault-tolerance", server("--enable-fault-tolerance"), server()),
    ("lmcache-internal-api", server(env={"LMCACHE_INTERNAL_API_SERVER_ENABLED": "true"}),
     server()),
    ("sglang-logit-processor", sglang("--enable-custom-logit-processor"), sglang()),
    ("sglang-admin-key-alone", sglang("--admin-api-key A"),
     sglang("--admin-api-key A --api-key K")),
    ("lmdeploy-terminate", lmdeploy("--allow-terminate-by-client"), lmdeploy()),
    ("lmdeploy-proxy-nodes", server("--api-keys K", **PROXY),
     server("--api-keys K", versions={"lmdeploy": "0.11.1"}, **PROXY)),
    ("lmdeploy-proxy-nodes", server(versions={"lmdeploy": "0.11.1"}, **PROXY),
     server(places=(LOCAL,), **PROXY)),
    ("running-as-root", server(confinement=Confinement(uid=0)), server()),
    ("running-as-root", container(uid=0), container(uid=0, own_users=True)),
    ("container-privileged", container(effective=FULL, bounding=FULL), container()),
    ("container-privileged", container(bounding=FULL), container(bounding=FULL, own_users=True)),
    ("container-capabilities", container(bounding=DOCKER | 1 << 21), container()),
    ("container-capabilities", container(effective=1 << 12), container(bounding=DOCKER | 1 << 14)),
    ("container-writable-root", container(writable_root=True), container()),
    ("container-new-privileges", container(no_new_privileges=False), container()),
    ("container-no-seccomp", container(seccomp=0), container()),
    ("container-host-pid", container(host_pid=True), container()),
    ("container-host-ipc", container(host_ipc=True), container()),
    ("container-host-ipc", container(host_ipc=True),
     server(confinement=Confinement(uid=1000, host_ipc=True, host_pid=True))),
    ("container-runtime-socket", container(runtime_sockets=("/run/docker.sock",)), container()),
    ("model-not-allowed", server(model="evil/model"), server(model="meta-llama/llama")),
    ("weights-checksum", server(weights=Weights("/m", wrong=("a differs",))),
     server(weights=Weights("/m", wrong=()))),
    ("weights-writable", server(weights=Weights("/m", writable=("/m/a",))), server()),
    ("weights-pickle", server(weights=Weights("/m", ("a.bin",))),
     server(weights=Weights("/m", ("a.bin",), safetensors=True))),
    ("weights-pickle", server("--load-format pt", weights=Weights("/m", ("a.bin",), True)),
     server("--load-format safetensors", weights=Weights("/m", ("a.bin",)))),
    ("weights-unpinned", server(), server(PINNED)),
    ("weights-unpinned", server(), server(env={"HF_HUB_OFFLINE": "1"})),
    ("weights-unpinned", server(), server(model="/srv/llama")),
    ("weights-unpinned", server(model="m"), server(model="m", weights=Weights(directory="m"))),
    ("key-on-command-line", server("--api-key K"), server(env={"VLLM_API_KEY": "<set>"})),
    ("tcpstore-wildcard", internal(Role.TCPSTORE, "::"), internal(Role.TCPSTORE, "127.0.0.1")),
    ("ray-dashboard-open", internal(Role.RAY_DASHBOARD, "192.0.2.1"),
     internal(Role.RAY_DASHBOARD, "127.0.0.1")),
    ("ray-client-open", internal(Role.RAY_CLIENT_SERVER, "0.0.0.0"),
     internal(Role.RAY_CLIENT_SERVER, "::1")),
    ("ray-dashboard-open", ray_node("2.58.1", ""), ray_node("2.58.1", "token")),
    ("ray-dashboard-open", ray_node("2.60.0", "disabled"), ray_node("2.60.0", "token")),
    ("ray-dashboard-open", ray_node("2.51.2", "token"), ray_node("2.52.0", "token")),
    ("ray-dashboard-open", ray_node("2.61.0", "disabled"), ray_node("2.61.0", "token")),
    ("rdma-in-use", server(rdma=("/dev/infiniband/uverbs0",)), server()),
)  # fmt: skip
