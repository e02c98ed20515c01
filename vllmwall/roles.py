"""Roles of listeners and stacks of workloads: the names that recognition gives."""

from __future__ import annotations

from enum import Enum


class Role(str, Enum):
    """What a listener is for. Only ``api`` is public unless the configuration says otherwise.

    ``web``: it looks like a web server and is not proven to be an API. ``backend``: an API that is
    made for a router, a prefill/decode partner or a trainer.
    """

    API = "api"
    METRICS = "metrics"
    TCPSTORE = "tcpstore"
    RENDEZVOUS = "rendezvous"
    GLOO = "gloo"
    NCCL = "nccl"
    MPI = "mpi"
    ZMQ = "zmq"
    ZMQ_IPC = "zmq-ipc"
    DP_RPC = "dp-rpc"
    DP_COORDINATOR = "dp-coordinator"
    KV_TRANSFER = "kv-transfer"
    KV_EVENTS = "kv-events"
    TENSORPIPE = "tensorpipe"
    WEB = "web"
    BACKEND = "backend"
    GRPC = "grpc"
    DYNAMO_REQUEST_PLANE = "dynamo-request-plane"
    RAY_GCS = "ray-gcs"
    RAY_NODE_MANAGER = "ray-node-manager"
    RAY_OBJECT_MANAGER = "ray-object-manager"
    RAY_WORKER = "ray-worker"
    RAY_CLIENT_SERVER = "ray-client-server"
    RAY_DASHBOARD = "ray-dashboard"
    RAY_DASHBOARD_AGENT_HTTP = "ray-dashboard-agent-http"
    RAY_DASHBOARD_AGENT_GRPC = "ray-dashboard-agent-grpc"
    RAY_RUNTIME_ENV_AGENT = "ray-runtime-env-agent"
    RAY_METRICS = "ray-metrics"
    RAY_METRICS_EXPORT = "ray-metrics-export"
    DEBUG = "debug"
    UNIX = "unix"
    UNKNOWN = "unknown"


class Stack(str, Enum):
    """The software a workload belongs to. ``custom``: defined in the configuration."""

    VLLM = "vllm"
    TORCH = "torch"
    RAY = "ray"
    SGLANG = "sglang"
    LMDEPLOY = "lmdeploy"
    MOONCAKE = "mooncake"
    NIXL = "nixl"
    LMCACHE = "lmcache"
    ROUTER = "router"
    DYNAMO = "dynamo"
    JAX = "jax"
    NCCL = "nccl"
    MPI = "mpi"
    HOROVOD = "horovod"
    UCX = "ucx"
    TRTLLM = "trtllm"
    TRITON = "triton"
    TGI = "tgi"
    TEI = "tei"
    LLAMA_CPP = "llama.cpp"
    OLLAMA = "ollama"
    GPUSTACK = "gpustack"
    XINFERENCE = "xinference"
    KSERVE = "kserve"
    APHRODITE = "aphrodite"
    LLAMAFACTORY = "llamafactory"
    SWIFT = "swift"
    BENTOML = "bentoml"
    LIGHTLLM = "lightllm"
    LLM_D = "llm-d"
    MONARCH = "monarch"
    CUSTOM = "custom"
