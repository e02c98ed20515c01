"""The variables, settings, flags and libraries of a process that recognition reads.

`observe` reads only these from an environment or a settings file, and a snapshot contains only
their values. None of them may hold secrets.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import MappingProxyType

ENV_KEYS: frozenset[str] = frozenset(
    {
        # torch.distributed: torch/distributed/rendezvous.py, elastic/agent/server/api.py
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "LOCAL_WORLD_SIZE",
        "MASTER_ADDR",
        "MASTER_PORT",
        "TORCHELASTIC_RUN_ID",
        # vLLM: vllm/envs.py. The first survives setproctitle in children (seen in 0.32).
        "VLLM_WORKER_MULTIPROC_METHOD",
        "VLLM_NIXL_SIDE_CHANNEL_PORT",
        "VLLM_MOONCAKE_BOOTSTRAP_PORT",
        "VLLM_P2P_SIDE_CHANNEL_PORT",
        "VLLM_EC_SIDE_CHANNEL_PORT",
        "VLLM_DP_MASTER_PORT",
        # Ray puts these into its workers: ray/_private/services.py
        "RAY_RAYLET_PID",
        "RAY_JOB_ID",
        # Mooncake transfer engine: mooncake-common/src/environ.cpp
        "MC_MIN_RPC_PORT",
        "MC_MAX_RPC_PORT",
        "SGLANG_TCP_STORE_PORT",
        # where a web server listens: its framework's own variable, or the platform's
        "PORT",
        "HTTP_PORT",
        "API_PORT",
        "APP_PORT",
        "SERVER_PORT",
        "WEB_PORT",
        "AIP_HTTP_PORT",
        "BENTOML_PORT",
        "FLASK_RUN_PORT",
        "GRADIO_SERVER_PORT",
        "GRANIAN_PORT",
        "CHAINLIT_PORT",
        "LITESTAR_PORT",
        "LLAMA_ARG_PORT",
        "NIM_HTTP_API_PORT",
        "NIM_SERVER_PORT",
        "OLLAMA_HOST",
        "QUART_RUN_PORT",
        "ROBYN_PORT",
        "SAGEMAKER_BIND_TO_PORT",
        "SANIC_PORT",
        "STREAMLIT_SERVER_PORT",
        "UVICORN_PORT",
        # Dynamo 1.6, TGI, vllm-tgis-adapter
        "DYN_HTTP_PORT",
        "DYN_SYSTEM_PORT",
        "DYN_TCP_RPC_PORT",
        "DYN_TCP_RESPONSE_STREAM_PORT",
        "ETCD_CLIENT_CERT_AUTH",
        "ETCD_CONFIG_FILE",
        "ETCD_TRUSTED_CA_FILE",
        "GRPC_PORT",
        "PROMETHEUS_PORT",
    }
)

# Of these, the ones that make a process worth a look: in no other software's environment.
CLAIMING_ENV: frozenset[str] = frozenset(
    {"RANK", "MASTER_ADDR", "VLLM_WORKER_MULTIPROC_METHOD", "RAY_RAYLET_PID", "RAY_JOB_ID"}
)

SETTINGS_KEYS: frozenset[str] = frozenset(
    {
        "api-server-count",
        "data-parallel-multi-port-external-lb",
        "data-parallel-rpc-port",
        "data-parallel-size",
        "data-parallel-size-local",
        "data-parallel-supervisor-port",
        "grpc",
        "grpc-port",
        "headless",
        "host",
        "master-port",
        "model",
        "model-path",
        "nccl-port",
        "port",
        "seed-listen-port",
        "smg-grpc-mode",
        "uds",
        "weight-cache-health-port",
    }
)

# Flags whose values may leave the process. Even then only values of a harmless shape do:
# numbers, addresses, yes and no, and the paths and JSON keys that recognition compares.
SAFE_FLAGS: frozenset[str] = SETTINGS_KEYS | {
    "address",
    "api-port",
    "bind",
    "client-cert-auth",
    "config",
    "config-file",
    "data-parallel-external-lb",
    "data-parallel-hybrid-lb",
    "data-parallel-rank",
    "data-parallel-start-rank",
    "disaggregation-bootstrap-port",
    "dist-init-addr",
    "dp",
    "ec-transfer-config",
    "enable-metrics",
    "encoder-bootstrap-port",
    "engine-info-bootstrap-port",
    "gcs-server-port",
    "grpc-listen-port",
    "head",
    "health-check-port",
    "http-metadata-server-port",
    "http-port",
    "kv-events-config",
    "kv-transfer-config",
    "listen",
    "listen-fd",
    "listen-port",
    "max-worker-port",
    "metrics-export-port",
    "metrics-port",
    "min-worker-port",
    "nnodes",
    "node-manager-port",
    "node-rank",
    "nproc-per-node",
    "object-manager-port",
    "prometheus-port",
    "rdzv-endpoint",
    "rpc-port",
    "runtime-env-agent-port",
    "server-name",
    "server-port",
    "session-dir",
    "session-name",
    "smg-http-sidecar-port",
    "standalone",
    "tlscacert",
    "tlsverify",
    "trusted-ca-file",
}

# Short flags whose numbers may leave the process (vLLM's, and web servers').
SAFE_SHORT_FLAGS: frozenset[str] = frozenset(
    {"-asc", "-dp", "-dpl", "-dpm", "-dpp", "-p", "-P", "-b"}
)

_PORT_FLAG = re.compile(r"(?:[a-z0-9]+[-_.]){0,5}(?:port|bind|listen|addr|address)")


def is_kept(flag: str) -> bool:
    """Whether the value of a flag, written without its dashes, may leave the process."""
    return flag in SAFE_FLAGS or _PORT_FLAG.fullmatch(flag) is not None


GPU = "gpu"
"""What `LIBRARY_MARKS` and an open device show of a process that uses an accelerator."""
GPU_DEVICES = ("/dev/nvidia", "/dev/kfd", "/dev/dri/render", "/dev/accel")

# A part of a path in /proc/PID/maps -> what it shows about the process.
LIBRARY_MARKS: Mapping[str, str] = MappingProxyType(
    {
        "libtorch_cpu.so": "torch",
        "libcuda.so": "cuda",
        "libnccl": "nccl",
        "/vllm/_C": "vllm",
        "/ray/_raylet": "ray",
        "libzmq": "zmq",
        "/sgl_kernel/": "sglang",
        "/lmdeploy/lib/_turbomind": "lmdeploy",
        "mooncake/engine": "mooncake",
        "libtransfer_engine": "mooncake",
        "libnixl": "nixl",
        "nixl/_bindings": "nixl",
        "libucs": "ucx",
        "libmpi.": "mpi",
        "libmpi_": "mpi",
        "libmpich": "mpi",
        "/mpi4py/": "mpi",
        "libgloo": "gloo",
        "/jaxlib/": "jax",
        "libtpu": "jax",
        # parsers of web servers
        "/httptools/": "httptools",
        "/aiohttp/_http": "aiohttp",
        "/granian/_granian": "granian",
        "/robyn/robyn.": "robyn",
        "/tornado/speedups": "tornado",
        "/gevent/": "gevent",
        "/lmcache/c_ops": "lmcache",
        **dict.fromkeys(GPU_DEVICES, GPU),
    }
)
