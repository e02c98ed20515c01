"""vLLM in every launch shape of the port catalogue that the recordings do not show."""

from __future__ import annotations

from tests.unit.recognize.node_builder import (
    SPAWN,
    ZMQ_THREADS,
    api_ports,
    process,
    renamed,
    roles,
    seen,
    stacks,
    tcp,
    unix,
)
from vllmwall.model import Process

VLLM = "/venv/bin/python3 /venv/bin/vllm"
MODULE = "/venv/bin/python3 -m vllm.entrypoints"
HOST = "10.0.0.7"


def engine_of(root: int, title: str = "VLLM::EngineCore", **fields: object) -> Process:
    """An engine below a root."""
    return renamed(root + 1, title, root, threads=ZMQ_THREADS, **fields)


def test_a_server_without_a_word_after_serve_stops_nothing() -> None:
    """It ends with an error of its own in seconds; until then it is a server like another."""
    found = seen(process(10, f"{VLLM} serve"), tcp(8000, "0.0.0.0", 10, backlog=2048))
    assert roles(found) == {8000: "api"}


def test_port_of_a_yaml_file_is_the_api() -> None:
    """A port that only the settings file names is as good as a flag."""
    root = process(10, f"{VLLM} serve --config f.yaml", settings={"port": "9123", "host": "::"})
    found = seen(root, tcp(9123, "::", 10, backlog=2048), tcp(9124, "0.0.0.0", 10, backlog=2048))
    assert roles(found) == {9123: "api", 9124: "unknown"}
    assert "config" in {e.kind for e in found.workloads[0].listeners[0].label.evidence}


def test_unread_yaml_file_leaves_backlog_and_tree() -> None:
    """When the settings file could not be read, uvicorn's backlog in the server is enough."""
    root = process(10, f"{VLLM} serve --config f.yaml")
    found = seen(root, tcp(9123, "0.0.0.0", 10, backlog=2048), tcp(9124, "::", 10, backlog=-1))
    assert roles(found) == {9123: "api", 9124: "tcpstore"}


def test_unread_yaml_file_and_no_backlog_is_internal() -> None:
    """One piece of evidence never opens a port."""
    root = process(10, f"{VLLM} serve --config f.yaml")
    assert not api_ports(seen(root, tcp(9123, "0.0.0.0", 10)))


def test_command_line_beats_yaml_and_the_last_flag_wins() -> None:
    """vLLM puts YAML below the flags; argparse takes the last of a name."""
    root = process(
        10, f"{VLLM} serve m --port 9000 --config f.yaml --port=9001", settings={"port": "9002"}
    )
    listeners = [tcp(port, "0.0.0.0", 10, backlog=2048) for port in (9000, 9001, 9002)]
    assert api_ports(seen(root, *listeners)) == {9001}


def test_abbreviated_flags_and_underscores() -> None:
    """argparse takes beginnings of names, and vLLM underscores for dashes."""
    assert api_ports(seen(process(10, f"{VLLM} serve m --por 9001"), tcp(9001, HOST, 10))) == {9001}
    root = process(10, f"{VLLM} serve m --api_server_count 0")
    assert not api_ports(seen(root, tcp(8000, HOST, 10, backlog=2048)))


def test_several_api_servers_share_one_socket() -> None:
    """One inode, three owners: the root and the API servers that inherited it."""
    found = seen(
        process(10, f"{VLLM} serve org/m --api-server-count 2"),
        renamed(12, "VLLM::APIServer_0", 10),
        renamed(13, "VLLM::APIServer_1", 10),
        tcp(8000, "0.0.0.0", 12, 13, 10, backlog=2048),
    )
    assert roles(found) == {8000: "api"}
    assert stacks(found) == [("vllm", "m", 10)]


def test_supervisor_has_health_and_its_children_the_apis() -> None:
    """Multi-port external LB: port + rank in the children, 9256 in the root."""
    root = process(
        10, f"{VLLM} serve m -dp 4 -dpl 2 --data-parallel-multi-port-external-lb --port 8100"
    )
    found = seen(
        root,
        renamed(12, "VLLM::APIServer_DP0", 10, threads=ZMQ_THREADS),
        renamed(13, "VLLM::APIServer_DP1", 10, threads=ZMQ_THREADS),
        renamed(14, "VLLM::DPCoordinator", 12, threads=ZMQ_THREADS),
        tcp(9256, "0.0.0.0", 10, backlog=2048),
        tcp(8100, "0.0.0.0", 12, backlog=2048),
        tcp(8101, "0.0.0.0", 13, backlog=2048),
        tcp(8102, "0.0.0.0", 13, backlog=2048),
        tcp(29550, "127.0.0.1", 12, backlog=100),
        tcp(41000, "127.0.0.1", 14, backlog=100),
        tcp(41001, "::", 12, backlog=-1),
    )
    assert roles(found) == {
        9256: "metrics",
        8100: "api",
        8101: "api",
        8102: "unknown",
        29550: "dp-rpc",
        41000: "dp-coordinator",
        41001: "tcpstore",
    }


def test_supervisor_port_can_be_told() -> None:
    """The health port follows its flag; any other web server of the root is no API either."""
    root = process(10, f"{VLLM} serve m -dpm -dpl 2 --data-parallel-supervisor-port 9300")
    found = seen(root, tcp(9300, HOST, 10), tcp(9256, HOST, 10, backlog=2048))
    assert roles(found) == {9300: "metrics", 9256: "metrics"}


def test_untitled_children_of_a_supervisor_serve_by_port_and_backlog() -> None:
    """Without setproctitle there is no title, but two pieces of evidence remain."""
    root = process(10, f"{VLLM} serve m -dp 2 --data-parallel-multi-port-external-lb")
    child = process(12, " ".join(SPAWN[:2]), 10)
    found = seen(root, child, tcp(8001, HOST, 12, backlog=2048), tcp(8000, HOST, 12))
    assert roles(found) == {8001: "api", 8000: "unknown"}


def test_run_batch_has_metrics_and_no_api() -> None:
    """``--port`` of run-batch is where Prometheus asks."""
    root = process(10, f"{VLLM} run-batch -i a -o b --model m --enable-metrics --port 8077")
    found = seen(root, tcp(8077, "0.0.0.0", 10, backlog=5), tcp(8078, "0.0.0.0", 10, backlog=5))
    assert roles(found) == {8077: "metrics", 8078: "metrics"}
    module = process(10, f"{MODULE}.openai.run_batch --enable-metrics")
    assert roles(seen(module, tcp(8000, "0.0.0.0", 10))) == {8000: "metrics"}


def test_headless_node_has_no_api() -> None:
    """A headless node serves engines of another one, whatever listens on 8000 there."""
    root = process(20, f"{VLLM} serve m --headless --nnodes 2 --node-rank 1")
    found = seen(
        root,
        renamed(21, "VLLM::Worker_PP1", 20, threads={**ZMQ_THREADS, "gloo_tcp_loop": 1}),
        tcp(8000, "0.0.0.0", 20, backlog=2048),
        tcp(40001, HOST, 21, backlog=100),
        tcp(40002, HOST, 21, backlog=-1),
    )
    assert roles(found) == {8000: "unknown", 40001: "zmq", 40002: "gloo"}


def test_unix_path_of_the_flag_is_the_api_and_no_tcp_port_is() -> None:
    """``--uds`` replaces the TCP port."""
    root = process(10, f"{VLLM} serve m --uds /run/v.sock")
    parts = (unix("/run/v.sock", 10), unix("/tmp/x", 10), tcp(8000, HOST, 10, backlog=2048))
    assert roles(seen(root, *parts)) == {"/run/v.sock": "api", "/tmp/x": "zmq-ipc", 8000: "unknown"}


def test_only_the_server_can_own_the_unix_api() -> None:
    """A child that binds the path of the flag is not the server."""
    root = process(10, f"{VLLM} serve m --uds /run/v.sock")
    assert roles(seen(root, engine_of(10), unix("/run/v.sock", 11))) == {"/run/v.sock": "zmq-ipc"}


def test_grpc_takes_the_port_and_listens_on_all_addresses() -> None:
    """gRPC binds [::] whatever --host says; its backlog is the longest."""
    root = process(10, f"{VLLM} serve m --grpc --host 0.0.0.0 --port 9000")
    found = seen(
        root,
        engine_of(10),
        tcp(9000, "::", 10, backlog=4096),
        tcp(45555, "0.0.0.0", 11, backlog=100),
    )
    assert roles(found) == {9000: "api", 45555: "kv-events"}


def test_grpc_module_has_a_default_port_of_its_own() -> None:
    """``vllm.entrypoints.grpc_server`` serves on 50051."""
    root = process(10, f"{MODULE}.grpc_server --model m")
    found = seen(
        root, tcp(50051, "::", 10, queue_limit=4096), tcp(8000, "::", 10, queue_limit=4096)
    )
    assert api_ports(found) == {50051}


def test_grpc_control_port_is_not_public() -> None:
    """``--grpc-port`` offers shutdown and weight updates: never public."""
    root = process(10, f"{VLLM} serve m --grpc-port 9001")
    found = seen(root, tcp(9001, HOST, 10, backlog=1024), tcp(8000, HOST, 10, backlog=2048))
    assert api_ports(found) == {8000}


def test_rust_frontend_serves_on_the_inherited_socket() -> None:
    """The parent binds, ``vllm-rs frontend`` listens with a backlog of its own."""
    found = seen(
        process(10, f"{VLLM} serve m --port 9000"),
        process(11, "/venv/bin/vllm-rs frontend --listen-fd 5 --args-json {}", 10),
        tcp(9000, "0.0.0.0", 10, 11, backlog=1024),
    )
    assert api_ports(found) == {9000}


def test_rust_server_starts_a_headless_python() -> None:
    """``vllm-rs serve`` is the server, its Python child has no API."""
    found = seen(
        process(10, "/venv/bin/vllm-rs serve m"),
        process(11, f"{MODULE}.cli.main serve m --headless", 10),
        tcp(8000, "127.0.0.1", 10, backlog=128),
        tcp(8000, "10.0.0.1", 11, backlog=2048),
    )
    assert [one.label.role.value for one in found.workloads[0].listeners] == ["api", "unknown"]


def test_side_channels_and_kv_events() -> None:
    """Ports of KV connectors come from variables, from JSON, or are defaults plus the rank."""
    root = process(
        10,
        VLLM + " serve m --data-parallel-size 2"
        """ --kv-events-config '{"endpoint":"tcp://*:6557","replay_endpoint":"tcp://*:6600"}'"""
        """ --kv-transfer-config.kv_port 21001""",
        env={"VLLM_NIXL_SIDE_CHANNEL_PORT": "7600"},
    )
    ports = {6557: "kv-events", 6558: "kv-events", 6601: "kv-events", 7601: "kv-transfer"}
    ports |= {21001: "kv-transfer", 5710: "kv-transfer", 43210: "zmq"}
    listeners = [tcp(port, HOST, 11, backlog=100) for port in ports]
    assert roles(seen(root, engine_of(10), *listeners)) == ports


def test_broken_json_is_no_error() -> None:
    """A flag that holds no JSON object tells nothing."""
    for text in ("{", "[1]", "7"):
        root = process(10, f"{VLLM} serve m --kv-events-config {text}")
        found = seen(root, engine_of(10), tcp(5557, "0.0.0.0", 11, backlog=100))
        assert roles(found) == {5557: "kv-events"}


def test_mooncake_and_lmcache_inside_a_worker() -> None:
    """Web servers of connectors are internal though they ask for uvicorn's backlog."""
    root = process(10, f"{VLLM} serve m", env={"VLLM_MOONCAKE_BOOTSTRAP_PORT": "9998"})
    found = seen(
        root,
        renamed(12, "VLLM::Worker_TP0", 10),
        tcp(9998, "0.0.0.0", 12, backlog=2048),
        tcp(15100, "0.0.0.0", 12, backlog=128),
        tcp(7000, "0.0.0.0", 12, backlog=2048),
        tcp(7777, "0.0.0.0", 12, backlog=2048),
    )
    expected = {9998: "kv-transfer", 15100: "kv-transfer", 7000: "debug", 7777: "unknown"}
    assert roles(found) == expected


def test_engine_that_is_a_ray_driver() -> None:
    """With Ray below or mapped, an engine's wildcard gRPC port is its core worker's."""
    root = process(10, f"{VLLM} serve m --distributed-executor-backend ray")
    engine = engine_of(10, libraries=frozenset({"ray"}))
    assert roles(seen(root, engine, tcp(36000, "::", 11, backlog=4096))) == {36000: "ray-worker"}


def test_api_server_sockets_of_zmq() -> None:
    """Sockets bound beforehand have Python's backlog 128, and ZMQ threads in some owner."""
    found = seen(
        process(10, f"{VLLM} serve m", threads={"vllm": 4}),
        renamed(12, "VLLM::APIServer_0", 10, threads=ZMQ_THREADS),
        tcp(40000, HOST, 10, 12, backlog=128),
        tcp(40001, HOST, 10, backlog=128),
    )
    assert roles(found) == {40000: "zmq", 40001: "unknown"}


def test_servers_by_module_snapshot_and_launch() -> None:
    """Every launch path of the catalogue's section 11."""
    for command in (
        f"{MODULE}.openai.api_server --model m",
        f"{MODULE}.api_server --model m",
        "/venv/bin/python3 -mvllm.entrypoints.openai.api_server --model m",
        f"{MODULE}.cli.main serve m",
        f"{VLLM} launch render m",
        f"{VLLM} snapshot restore s",
        "/venv/bin/python3 -u -X dev /venv/bin/vllm serve m",
        "/venv/bin/python3 /src/vllm/entrypoints/openai/api_server.py --model m",
        "/opt/vllm serve m",
    ):
        found = seen(process(10, command), tcp(8000, "0.0.0.0", 10))
        assert roles(found) == {8000: "api"}, command


def test_no_server_is_claimed_by_its_words() -> None:
    """Clients, installers, editors and shells that name vLLM are no workloads."""
    for command in (
        f"{VLLM} bench serve --port 8000",
        f"{VLLM} chat",
        f"{VLLM} snapshot create x",
        f"{VLLM} --help",
        VLLM,
        "/bin/bash -c 'vllm serve m'",
        "grep vllm serve",
        "vim vllm.py",
        "tee vllm serve",
        "/usr/bin/python3 -m pip install vllm serve",
        "/usr/bin/python3 -c 'import vllm' serve",
        "/usr/bin/python3 standard-supervisor vllm serve m",
        "vllm-rs",
        "/usr/bin/python3 -W ignore",
        "/usr/bin/python3 -m",
        "sudo vllm serve m",
    ):
        found = seen(process(10, command), tcp(8000, "0.0.0.0", 10, backlog=2048))
        assert roles(found) == {8000: "-"}, command


def test_preload_has_no_api() -> None:
    """``vllm preload`` keeps weights; its web server is health."""
    found = seen(process(10, f"{VLLM} preload m"), tcp(8000, "0.0.0.0", 10, backlog=2048))
    assert roles(found) == {8000: "unknown"}


def test_workload_without_listeners_is_found() -> None:
    """Guards close ports before they exist, so the launcher alone counts."""
    assert stacks(seen(process(10, f"{VLLM} serve /models/llama-3/"))) == [("vllm", "llama-3", 10)]


def test_offline_engine_and_its_script() -> None:
    """``LLM()`` in a script: the script is the root. The web server that it runs around the engine
    is its API on uvicorn's own port, and unproven on any other."""
    found = seen(
        process(9, "/bin/bash", 1),
        process(10, "/venv/bin/python3 /home/u/generate.py", 9),
        renamed(11, "VLLM::EngineCore", 10),
        tcp(8000, "0.0.0.0", 10, backlog=2048),
        tcp(8099, "0.0.0.0", 10, backlog=2048),
        tcp(40000, HOST, 11, backlog=-1),
    )
    assert stacks(found) == [("vllm", "generate.py", 10)]
    assert roles(found) == {8000: "api", 8099: "web", 40000: "gloo"}


def test_engine_in_process_is_known_by_its_library() -> None:
    """Without multiprocessing there is no child; the mapped library tells."""
    script = process(10, "/venv/bin/python3 gen.py", libraries=frozenset({"vllm", "torch"}))
    assert roles(seen(script, tcp(40000, HOST, 10, backlog=-1))) == {40000: "gloo"}


def test_custom_title_prefix_and_old_titles() -> None:
    """VLLM_PROCESS_NAME_PREFIX changes the text before the colons."""
    for title in ("mine::EngineCore_DP0", "VLLM::DPEngineCore_1", "VLLM::Worker"):
        found = seen(renamed(11, title, 1), tcp(40000, HOST, 11, backlog=-1))
        assert roles(found) == {40000: "gloo"}, title


def test_orphans_of_a_killed_root_stay_one_workload() -> None:
    """SIGKILL of the API process leaves engines under pid 1; they stay closed, together."""
    found = seen(
        process(1, "/sbin/init", 0),
        process(
            8,
            *(" ".join(SPAWN[:2]),),
            birth_ppid=7,
            env={"VLLM_WORKER_MULTIPROC_METHOD": "x"},
            exec_argv=SPAWN,
        ),
        renamed(11, "VLLM::EngineCore_DP0", 1, birth_ppid=7),
        renamed(12, "VLLM::EngineCore_DP1", 1, birth_ppid=7),
        renamed(13, "VLLM::Worker", 12),
        tcp(8000, "0.0.0.0", 13, backlog=2048),
    )
    assert stacks(found) == [("vllm", "vllm", 11)]
    assert found.workloads[0].pids == {8, 11, 12, 13}
    assert roles(found) == {8000: "unknown"}


def test_forked_child_with_the_servers_command_line_is_no_server() -> None:
    """vLLM up to 0.10.0 forks untitled engines: same argv, but not the outermost."""
    command = f"{VLLM} serve m --config f.yaml"
    found = seen(
        process(10, command), process(11, command, 10), tcp(8998, "0.0.0.0", 11, backlog=2048)
    )
    assert roles(found) == {8998: "kv-transfer"}


def test_model_names_never_carry_credentials() -> None:
    """A name is a plain last path component, else the stack's."""
    for model, shown in (
        ("https://u:secret@host", "vllm"),
        ("s3://key:secret@bucket/llama", "llama"),
        ("--enforce-eager ./m", "vllm"),
        ("--model org/m", "m"),
        ("--port 8000 m", "vllm"),
    ):
        found = seen(process(10, f"{VLLM} serve {model}"))
        assert found.workloads[0].name == shown, model


def test_preload_hands_weights_to_peers_on_a_port_for_each_rank() -> None:
    """0.33: --seed-listen-port + rank, plain TCP in the daemon of the rank, under a token."""
    root = process(10, f"{VLLM} preload m --seed-listen-port 7100 --weight-cache-health-port 9100")
    ranks = [process(11 + rank, " ".join(SPAWN), 10, threads={"python3": 1}) for rank in (0, 1)]
    found = seen(
        root,
        *ranks,
        tcp(9100, "0.0.0.0", 10, backlog=2048),
        tcp(7100, HOST, 11, backlog=128),
        tcp(7101, HOST, 12, backlog=128),
        tcp(7000, HOST, 12, backlog=128),
    )
    assert roles(found) == {
        9100: "metrics",
        7100: "kv-transfer",
        7101: "kv-transfer",
        7000: "unknown",
    }


def test_a_random_seed_is_no_port() -> None:
    """``--seed`` is a flag of its own."""
    root = process(10, f"{VLLM} preload m --seed 7100", threads={"python3": 1})
    assert roles(seen(root, tcp(7100, HOST, 10, backlog=128))) == {7100: "unknown"}
