"""What the embedding library checks, plans and says is what the Python package does: both are asked."""

import ctypes
import json
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from embedding import open_library
from mindspore_serving import server as python_server
from mindspore_serving.server import _checks, _launch


class ServableConfig(ctypes.Structure):
    _fields_: ClassVar = [
        ("struct_size", ctypes.c_size_t),
        ("servable_directory", ctypes.c_char_p),
        ("servable_name", ctypes.c_char_p),
        ("device_ids", ctypes.POINTER(ctypes.c_int64)),
        ("device_ids_count", ctypes.c_size_t),
        ("version_number", ctypes.c_int64),
        ("device_type", ctypes.c_char_p),
        ("num_parallel_workers", ctypes.c_int64),
        ("dec_key", ctypes.c_char_p),
        ("dec_key_size", ctypes.c_size_t),
        ("dec_mode", ctypes.c_char_p),
    ]


class ListenOptions(ctypes.Structure):
    _fields_: ClassVar = [
        ("struct_size", ctypes.c_size_t),
        ("max_msg_mb_size", ctypes.c_int64),
        ("certificate", ctypes.c_char_p),
        ("private_key", ctypes.c_char_p),
        ("custom_ca", ctypes.c_char_p),
        ("verify_client", ctypes.c_int32),
        ("max_connections", ctypes.c_int64),
        ("max_streams_per_connection", ctypes.c_int64),
        ("max_pipelined_requests", ctypes.c_int64),
        ("max_header_bytes", ctypes.c_int64),
        ("request_timeout_seconds", ctypes.c_double),
        ("reply_timeout_seconds", ctypes.c_double),
        ("idle_timeout_seconds", ctypes.c_double),
        ("max_resets_per_second", ctypes.c_int64),
        ("max_control_frames_per_second", ctypes.c_int64),
        ("connection_bytes_share", ctypes.c_double),
    ]


@pytest.fixture
def embedded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator:
    """A function that calls one of the library's on a server in this process, and returns what it says of a failure."""
    monkeypatch.chdir(tmp_path)
    loaded = open_library()
    server = ctypes.c_void_p()
    assert not loaded.ms_serving_server_create(None, ctypes.byref(server))

    def call(name: str, *arguments) -> str:
        function = getattr(loaded, f"ms_serving_{name}")
        function.restype = ctypes.c_void_p
        error = function(server, *arguments)
        text = loaded.ms_serving_error_message(error).decode()
        loaded.ms_serving_error_free(error)
        return text

    call.library = loaded
    yield call
    loaded.ms_serving_server_destroy(server)


def start_servables(embedded, *configs: dict) -> str:
    structs = []
    for fields in configs:
        struct = ServableConfig()
        embedded.library.ms_serving_servable_config_init(ctypes.byref(struct), ctypes.c_size_t(ctypes.sizeof(struct)))
        for name, value in fields.items():
            if name == "device_ids":
                struct.device_ids_count = len(value)
                value = (ctypes.c_int64 * len(value))(*value)
            elif name == "dec_key":
                struct.dec_key_size = len(value)
            setattr(struct, name, value.encode() if isinstance(value, str) else value)
        structs.append(struct)
    array = (ctypes.POINTER(ServableConfig) * len(structs))(*(ctypes.pointer(struct) for struct in structs))
    return embedded("server_start_servables", array, ctypes.c_size_t(len(structs)), None, None)


def python_text(function, *arguments, **named) -> str:
    with pytest.raises(RuntimeError) as raised:
        function(*arguments, **named)
    return str(raised.value)


@pytest.fixture
def servables(tmp_path: Path) -> Path:
    root = tmp_path / "my servables"
    for name, versions in (("add", ("1", "2", "10")), ("bare", ()), ("odd", ())):
        (root / name).mkdir(parents=True)
        (root / name / "servable_config.py").write_text("")
        for version in versions:
            (root / name / version).mkdir()
    (root / "odd" / "3").write_text("a file")
    (root / "none").mkdir()
    return root


@pytest.mark.parametrize(
    "fields",
    [
        {"servable_directory": ""},
        {"servable_name": ""},
        {"servable_name": ".."},
        {"servable_name": "it's/\\ \n"},
        {"device_ids": (-1,)},
        {"device_ids": (0, -3)},
        {"device_ids": (4, 5, 4)},
        {"version_number": -1},
        {"device_type": ""},
        {"device_type": "TPU"},
        {"num_parallel_workers": 65},
        {"num_parallel_workers": -1},
        {"dec_key": b"short"},
        {"dec_mode": "DES"},
        {"dec_mode": ""},
    ],
    ids=str,
)
def test_AWrongConfigIsRefusedInPythonsWords(embedded, servables: Path, fields: dict):
    whole = {"servable_directory": str(servables), "servable_name": "add", **fields}
    assert start_servables(embedded, whole) == python_text(python_server.ServableStartConfig, **whole)


@pytest.mark.parametrize(
    "configs",
    [
        [{"servable_directory": "/nowhere"}],
        [{"servable_directory": "no/where"}],
        [{"servable_name": "absent"}],
        [{"servable_name": "none"}],
        [{"version_number": 3}],
        [{"servable_name": "odd", "version_number": 3}],
        [{"dec_key": bytes(16)}, {"dec_key": bytes(24)}],
        [{"dec_key": bytes(16)}, {"dec_key": bytes(16), "dec_mode": "AES-CBC"}],
        [{"device_type": "cpu"}, {"version_number": 10}],
    ],
    ids=str,
)
def test_APlanIsRefusedInPythonsWords(embedded, servables: Path, configs: list[dict]):
    whole = [{"servable_directory": str(servables), "servable_name": "add", **fields} for fields in configs]
    made = [python_server.ServableStartConfig(**fields) for fields in whole]
    expected = python_text(_launch.plan_servables, made, Path("/logs"))
    assert start_servables(embedded, *whole) == expected


@pytest.mark.parametrize(
    "address",
    ["", "127.0.0.1", ":5500", "127.0.0.1:", "127.0.0.1:http", "127.0.0.1:-1", "127.0.0.1:0", "127.0.0.1:65536",
     "127.0.0.1:٣", "127.0.0.1:00099999999999999999999", "[::1]:0"],
)  # fmt: skip
def test_AWrongAddressIsRefusedInPythonsWords(embedded, address: str):
    expected = python_text(lambda: _checks.check_ip_address(_checks.check_str("address", address)))
    assert embedded("server_start_grpc", address.encode(), None) == expected
    assert embedded("server_start_rest", address.encode(), None) == expected


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("max_connections", (0, 1_000_001)),
        ("max_streams_per_connection", (0, 100_001)),
        ("max_pipelined_requests", (-1, 10_001)),
        ("max_header_bytes", (1023, 1048577)),
        ("request_timeout_seconds", (0.0, -1e-05, 1e22, float("nan"), 604800.5)),
        ("reply_timeout_seconds", (0.001, float("inf"))),
        ("idle_timeout_seconds", (1e6,)),
        ("max_resets_per_second", (0,)),
        ("max_control_frames_per_second", (0,)),
        ("connection_bytes_share", (0.0001, 1.5, 1e-7)),
    ],
)
def test_AWrongLimitIsRefusedInPythonsWords(embedded, field: str, values: tuple):
    for value in values:
        options = ListenOptions()
        embedded.library.ms_serving_listen_options_init(ctypes.byref(options), ctypes.c_size_t(ctypes.sizeof(options)))
        setattr(options, field, value)
        said = embedded("server_start_grpc", b"127.0.0.1:1", ctypes.byref(options))
        assert said == python_text(python_server.ServerLimits, **{field: value})


def test_PlansAreThoseOfPython(embedded, servables: Path, tmp_path: Path, monkeypatch):
    """What a worker is told is the same JSON: a Python that writes it down stands where the interpreter stands."""
    note = tmp_path / "note"
    stand_in = tmp_path / "python"
    stand_in.write_text(
        f"#!{sys.executable}\n"
        "import os, socket, struct, sys\n"
        "if sys.argv[1] == '-c':\n"
        "    os.execv(sys.executable, [sys.executable, *sys.argv[1:]])\n"
        "s = socket.socket(fileno=int(sys.argv[-1]))\n"
        "head, fds, _, _ = socket.recv_fds(s, 16, 64)\n"
        "size = struct.unpack('<cxxxIQ', head)[2]\n"
        f"with open({str(note)!r}, 'ab') as file:\n"
        "    file.write(s.recv(size, socket.MSG_WAITALL) + b'\\n')\n"
        "sys.exit(1)\n"
    )
    stand_in.chmod(0o755)
    monkeypatch.setenv("MSSERVING_PYTHON", str(stand_in))
    odd = 'a "quoted" ü \\ name'
    shutil.copytree(servables / "add", servables / odd)
    for fields in (
        {"servable_name": "add"},
        {"servable_name": "bare", "version_number": 7, "num_parallel_workers": 3},
        {"servable_name": odd, "version_number": 2, "device_ids": (4,), "device_type": "ascend"},
        {"servable_name": "add", "servable_directory": "my servables/../my servables/"},
    ):
        whole = {"servable_directory": str(servables), **fields}
        config = python_server.ServableStartConfig(**whole)
        (plan,) = _launch.plan_servables([config], tmp_path / "serving_logs")
        note.unlink(missing_ok=True)
        assert "exited with status 1" in start_servables(embedded, whole)
        orders = [json.loads(line) for line in note.read_bytes().splitlines()]
        assert orders[0] == json.loads(plan.workers[0].config_json)
        assert (tmp_path / "serving_logs" / Path(plan.workers[0].log_file).name).exists()
