"""The flags, settings and variables of a vLLM server, as far as ports depend on them.

Sources: vllm/entrypoints/common/cli_args.py (0.32: launchers/), vllm/entrypoints/cli/preload.py,
vllm/engine/arg_utils.py, vllm/envs.py, vllm/entrypoints/launchers/dp_supervisor.py (0.33), port
catalogue §11. The command line takes precedence over the YAML file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from vllmwall.model import Process
from vllmwall.recognize.commandline import (
    Command,
    Flags,
    command_of,
    read_flags,
    whole_number,
)
from vllmwall.recognize.inputs import SETTINGS_KEYS

_KNOWN = SETTINGS_KEYS - {"model-path", "nccl-port", "smg-grpc-mode"} | {
    "config",
    "data-parallel-address",
    "data-parallel-external-lb",
    "data-parallel-hybrid-lb",
    "data-parallel-rank",
    "data-parallel-start-rank",
    "ec-transfer-config",
    "kv-events-config",
    "kv-transfer-config",
    "listen-fd",
    "seed",  # a number of its own, not the beginning of --seed-listen-port
}
_SHORT = {
    "-asc": "api-server-count",
    "-dp": "data-parallel-size",
    "-dpl": "data-parallel-size-local",
    "-dpm": "data-parallel-multi-port-external-lb",
    "-dpp": "data-parallel-rpc-port",
}
_PORTS = {"serve": 8000, "rust": 8000, "batch": 8000, "grpc": 50051}
_RPC_PORT = 29550
_SUPERVISOR_PORT = 9256
_MODULES = {
    "vllm.entrypoints.openai.api_server": "serve",
    "vllm.entrypoints.api_server": "serve",
    "vllm.entrypoints.grpc_server": "grpc",
    "vllm.entrypoints.openai.run_batch": "batch",
}
_CONSOLE = re.compile(r"vllm(?:[-_][a-z]+)?")
_PORT_VARIABLES = ("NIM_SERVER_PORT", "NIM_HTTP_API_PORT")  # NVIDIA's derived images
_PARTNERS = re.compile(r"(?:nixl|p2pnccl|pynccl|moriio|mooncakeconnector|lmcachepd)", re.IGNORECASE)
_SUBCOMMANDS = {
    "serve": "serve",
    "launch": "serve",
    "snapshot": "serve",
    "run-batch": "batch",
    "preload": "preload",
}
_RUST = {"serve": "rust", "frontend": "api-server"}
# variable, default port: NIXL, P2P tier, encoder cache
_SIDE_CHANNELS = (
    ("VLLM_NIXL_SIDE_CHANNEL_PORT", 5600),
    ("VLLM_P2P_SIDE_CHANNEL_PORT", 5710),
    ("VLLM_EC_SIDE_CHANNEL_PORT", 5601),
)
_MOST_SEEDS = 128  # ranks of one node, and as many for a draft model
_ENDPOINT_PORT = re.compile(r":([0-9]{1,5})$")


def server_kind(command: Command) -> str:
    """``serve``, ``grpc``, ``batch``, ``preload``, ``rust``, ``api-server``; empty: not vLLM.

    ``vllm bench``, ``chat`` and ``complete`` are clients, and so not vLLM here.
    """
    if command.name == "vllm-rs":
        return _RUST.get(command.args[0] if command.args else "", "")
    if _CONSOLE.fullmatch(command.name) or _runs_console(command):
        subcommand = next((word for word in command.args if not word.startswith("-")), "")
        if subcommand == "snapshot" and "restore" not in command.args[:2]:
            return ""
        return _SUBCOMMANDS.get(subcommand, "")
    return command.pick(_MODULES) or next(filter(None, map(_derived, command.modules)), "")


def _runs_console(command: Command) -> bool:
    return any(
        one.endswith("vllm.entrypoints.cli.main") or one == "vllm" for one in command.modules
    )


def _derived(module: str) -> str:
    """An entry point under another name: ``vllm_nvext.entrypoints.openai.api_server`` of NIM,
    ``ipex_llm.vllm.xpu.entrypoints…``, ``vllm.entrypoints.launchers.api_server.entry``."""
    package, found, rest = module.partition(".entrypoints.")
    if not found or "vllm" not in package:
        return ""
    parts = rest.split(".")
    return "serve" if "api_server" in parts else "grpc" if "grpc_server" in parts else ""


@dataclass(frozen=True)
class ServerFlags:
    """The flags of a server, from its command line and settings file."""

    args: tuple[str, ...]
    settings: Mapping[str, str]

    @classmethod
    def of(cls, process: Process) -> ServerFlags:
        """Those of this process at exec."""
        told = next(filter(None, map(process.env.get, _PORT_VARIABLES)), None)
        settings = {**({"port": told} if told else {}), **process.settings}
        return cls(command_of(process).args, settings)

    @cached_property
    def _flags(self) -> Flags:
        return read_flags(self.args, _KNOWN, _SHORT, self.settings)

    @cached_property
    def _own(self) -> Flags:
        return read_flags(self.args, _KNOWN, _SHORT)

    @property
    def model(self) -> str:
        """The model as given; empty where it may be the value of a switch."""
        flag = self._flags.text("model")
        words = [word for word in self.args[:3] if not word.startswith("-")]
        if flag or not words or words[0] not in _SUBCOMMANDS:
            return flag or ""
        neighbour = self.args[self.args.index(words[0]) + 1 :][:1]
        return neighbour[0] if neighbour and neighbour[0] in words[1:2] else ""

    @property
    def host(self) -> str:
        """``--host``; empty: all IPv4 addresses."""
        return self._flags.text("host") or ""

    @property
    def uds(self) -> str:
        """The unix path that replaces the TCP port; empty: none."""
        return self._flags.text("uds") or ""

    @property
    def grpc(self) -> bool:
        """gRPC instead of HTTP."""
        return self._flags.is_on("grpc")

    @property
    def is_supervisor(self) -> bool:
        """It starts one server for each local rank and has only a health port itself."""
        return self._flags.is_on("data-parallel-multi-port-external-lb")

    @property
    def supervisor_port(self) -> int:
        """The health port of a supervisor."""
        return self._flags.number("data-parallel-supervisor-port") or _SUPERVISOR_PORT

    @property
    def port(self) -> int:
        """``--port`` or its default."""
        return self._flags.number("port") or _PORTS["serve"]

    @property
    def rpc_port(self) -> int:
        """The port of the data-parallel handshake."""
        return self._flags.number("data-parallel-rpc-port") or _RPC_PORT

    def kind_of(self, name: str) -> str:
        """Evidence kind of a value: ``flag``, ``config`` or ``default-port``."""
        if self._own.text(name) is not None:
            return "flag"
        return "config" if self._flags.text(name) is not None else "default-port"

    def api_ports(self, kind: str) -> Mapping[int, str] | None:
        """Where the API of a server of this kind listens; None: the command line hides it."""
        flags = self._flags
        headless = flags.is_on("headless") or flags.number("api-server-count") == 0
        if headless or self.uds:
            return {}
        port = flags.number("port")
        if port == 0 or (port is None and self._port_is_hidden):
            return None
        first = port or _PORTS[kind]
        return {first + rank: self.kind_of("port") for rank in range(self._api_count)}

    @property
    def _port_is_hidden(self) -> bool:
        """A settings file that we could not read may name it, or it is no number."""
        unread = self._flags.text("config") is not None and not self.settings
        return unread or self._flags.text("port") is not None

    @property
    def _api_count(self) -> int:
        if not self.is_supervisor:
            return 1
        size = self._flags.number("data-parallel-size")
        return min(self._flags.number("data-parallel-size-local") or size or 1, 1024)

    @property
    def grpc_port(self) -> int:
        """The second port, of the Rust frontend's gRPC; 0: none."""
        return self._flags.number("grpc-port") or 0

    @property
    def weights_health_port(self) -> int:
        """Where `vllm preload` answers /health; 0: nowhere."""
        return self._flags.number("weight-cache-health-port") or 0

    def is_seed(self, port: int) -> bool:
        """One of the ports of `vllm preload`, one a rank, that hand weights to another node."""
        first = self._flags.number("seed-listen-port")
        return first is not None and first <= port < first + _MOST_SEEDS

    @property
    def partner(self) -> str:
        """Why its API is for a prefill or decode partner; empty: it is not."""
        config = self._flags.object("kv-transfer-config")
        role, connector = str(config.get("kv_role", "")), str(config.get("kv_connector", ""))
        if role in ("kv_producer", "kv_consumer") or _PARTNERS.match(connector):
            return f"kv-transfer-config: {connector or role} serves a prefill or decode partner"
        return ""

    @property
    def is_balanced_outside(self) -> bool:
        """One of several ranks behind a load balancer that is not vLLM's."""
        flags = self._flags
        names = ("data-parallel-external-lb", "data-parallel-hybrid-lb")
        return any(map(flags.is_on, names)) or flags.text("data-parallel-rank") is not None

    @property
    def kv_event_ports(self) -> frozenset[int]:
        """The ports of ``--kv-events-config``: one for each data-parallel rank."""
        config = self._flags.object("kv-events-config")
        ranks = range(min(self._flags.number("data-parallel-size") or 1, 1024))
        found = set()
        for key in ("endpoint", "replay_endpoint"):
            if match := _ENDPOINT_PORT.search(str(config.get(key, ""))):
                found |= {int(match.group(1)) + rank for rank in ranks}
        return frozenset(found)

    def side_channel(self, port: int, process: Process) -> str:
        """How we know that this is a KV side channel: ``environment``, ``flag``…; empty: it is
        none. Rank n of a data-parallel group uses the base port + n."""
        ranks = max(1, self._flags.number("data-parallel-size") or 1)
        for variable, default in _SIDE_CHANNELS:
            text = process.env.get(variable, "")
            base = whole_number(text) or default
            if base <= port < base + ranks:
                return "environment" if text else "default-port"
        for name, key in (("kv-transfer-config", "kv_port"), ("ec-transfer-config", "ec_port")):
            if str(self._flags.object(name).get(key, "")) == str(port):
                return "flag"
        return ""

    def bootstrap(self, port: int, process: Process) -> bool:
        """The HTTP port where Mooncake peers find each other."""
        return str(port) == process.env.get("VLLM_MOONCAKE_BOOTSTRAP_PORT", "8998")
