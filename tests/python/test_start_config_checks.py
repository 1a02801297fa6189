"""Parameter checks of start_grpc_server, start_restful_server and start_servables, and what a failed start leaves."""

from typing import ClassVar

import pytest

from mindspore_serving import server
from mindspore_serving.server import _checks, _server

DEFAULT_LIMITS = {
    "max_connections": 10_000,
    "max_streams_per_connection": 1024,
    "max_pipelined_requests": 64,
    "max_header_bytes": 16_384,
    "request_timeout_seconds": 100.0,
    "reply_timeout_seconds": 100.0,
    "max_resets_per_second": 1000,
    "max_control_frames_per_second": 100,
    "connection_bytes_share": 0.25,
}


class RecordingNative:
    """Stands where the native server stands and notes what it is told."""

    def __init__(self, io_threads, spin_s):
        self.calls = []
        self.io_threads = io_threads
        self.spin_s = spin_s

    def __getattr__(self, name):
        def call(*args):
            self.calls.append((name, *args))
            return self.answers.get(name)

        return call

    answers: ClassVar = {"stop_requested": 0}


@pytest.fixture
def natives(monkeypatch):
    """The native servers made during the test, newest last."""
    made = []

    class Core:
        @staticmethod
        def Server(io_threads, silence_s, spin_s):
            made.append(RecordingNative(io_threads, spin_s))
            return made[-1]

    monkeypatch.setattr(_server, "load_native", lambda name: Core)
    yield made
    server.stop()


def names(native):
    return [call[0] for call in native.calls]


@pytest.mark.parametrize("start", [server.start_grpc_server, server.start_restful_server])
@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ((5500,), "'address' should be str"),
        (("",), "'address' should not be empty str"),
        (("127.0.0.1",), "is illegal: ip and port should be separated by ':'"),
        ((":5500",), "the ip is missing"),
        (("127.0.0.1:",), "the port is missing"),
        (("127.0.0.1:http",), "the port 'http' is not a number"),
        (("127.0.0.1:-1",), "the port '-1' is not a number"),
        (("127.0.0.1:٣",), "is not a number"),
        (("127.0.0.1:0",), r"port 0 is out of legal range \[1 ~ 65535\]"),
        (("127.0.0.1:65536",), r"port 65536 is out of legal range \[1 ~ 65535\]"),
        (("127.0.0.1:5500", 0), r"'max_msg_mb_size' should be in range \[1, 512\], but 0"),
        (("127.0.0.1:5500", 513), r"'max_msg_mb_size' should be in range \[1, 512\], but 513"),
        (("127.0.0.1:5500", 1.0), "'max_msg_mb_size' should be int"),
        (("127.0.0.1:5500", True), "'max_msg_mb_size' should be int"),
        (("127.0.0.1:5500", 100, "tls"), "'ssl_config' should be SSLConfig or None"),
    ],
)
def test_a_wrong_parameter_of_a_server_is_refused(natives, start, arguments, text):
    with pytest.raises(RuntimeError, match=text):
        start(*arguments)
    with pytest.raises(RuntimeError, match="'limits' should be ServerLimits or None"):
        start("127.0.0.1:5500", limits={"max_connections": 1})
    assert natives == []


@pytest.mark.parametrize("start", [server.start_grpc_server, server.start_restful_server])
def test_limits_reach_the_native_server(natives, start):
    start("127.0.0.1:5500", limits=server.ServerLimits(max_connections=7, idle_timeout_seconds=0))
    assert natives[0].calls[0][-1] == {**DEFAULT_LIMITS, "max_connections": 7, "idle_timeout_seconds": 0.0}


@pytest.mark.parametrize("name", [*DEFAULT_LIMITS, "idle_timeout_seconds"])
def test_every_limit_is_checked(name):
    for wrong in (-1, True, "1", 1e12, float("nan")):
        with pytest.raises(RuntimeError, match=f"'{name}' should be"):
            server.ServerLimits(**{name: wrong})
    good = 0.5 if name == "connection_bytes_share" else 1024
    assert f"{name}={good}" in repr(server.ServerLimits(**{name: good}))


def test_the_last_colon_splits_the_address():
    assert _checks.check_ip_address("[::1]:5500") == ("[::1]", 5500)


def test_unix_addresses_are_for_grpc_alone(natives, tmp_path):
    with pytest.raises(RuntimeError, match="path after 'unix:' is empty"):
        server.start_grpc_server("unix:")
    with pytest.raises(RuntimeError, match=r"directory '.*nowhere' does not exist"):
        server.start_grpc_server(f"unix:{tmp_path}/nowhere/socket")
    with pytest.raises(RuntimeError, match="RESTful server takes ip:port only"):
        server.start_restful_server(f"unix:{tmp_path}/socket")
    server.start_grpc_server(f"unix:{tmp_path}/socket")
    assert natives[-1].calls[0][:2] == ("start_grpc", f"unix:{tmp_path}/socket")


def test_the_ready_line_is_on_standard_output(natives, capsys):
    server.start_grpc_server("127.0.0.1:5500", 7)
    server.start_restful_server("127.0.0.1:1500")
    assert natives[0].calls == [
        ("start_grpc", "127.0.0.1:5500", 7, None, None, None, False, DEFAULT_LIMITS),
        ("start_restful", "127.0.0.1:1500", 100, None, None, None, False, DEFAULT_LIMITS),
    ]
    assert capsys.readouterr().out.splitlines() == [
        "Serving gRPC server start success, listening on 127.0.0.1:5500",
        "Serving RESTful server start success, listening on 127.0.0.1:1500",
    ]


def test_the_authorities_of_clients_count_only_when_clients_are_verified(natives):
    server.start_grpc_server("127.0.0.1:5500", ssl_config=server.SSLConfig("c", "k", "ca"))
    server.start_restful_server("127.0.0.1:1500", ssl_config=server.SSLConfig("c", "k", "ca", True))
    assert natives[0].calls[0][3:7] == ("c", "k", None, False)
    assert natives[0].calls[1][3:7] == ("c", "k", "ca", True)


@pytest.mark.parametrize(
    ("start", "name"),
    [(server.start_grpc_server, "start_grpc_server"), (server.start_restful_server, "start_restful_server")],
)
def test_a_second_start_stops_the_whole_server(natives, start, name):
    start("127.0.0.1:5500")
    with pytest.raises(RuntimeError, match=f"{name} has been called already"):
        start("127.0.0.1:5501")
    assert "stop" in names(natives[0])
    start("127.0.0.1:5500")  # everything can be started again
    assert len(natives) == 2


def test_a_wrong_parameter_stops_what_runs(natives):
    server.start_grpc_server("127.0.0.1:5500")
    with pytest.raises(RuntimeError, match="should be in range"):
        server.start_restful_server("127.0.0.1:1500", 1000)
    assert "stop" in names(natives[0])


def test_a_servable_that_cannot_start_stops_the_server(natives, tmp_path):
    server.start_grpc_server("127.0.0.1:5500")
    with pytest.raises(RuntimeError, match="Check servable config failed, directory"):
        server.start_servables(server.ServableStartConfig(str(tmp_path), "add", 0))
    assert names(natives[0]) == ["start_grpc", "stop", "restore_signal_handlers"]


def test_a_workers_failure_is_raised_and_stops_the_server(natives, tmp_path, monkeypatch):
    (tmp_path / "add" / "1").mkdir(parents=True)
    (tmp_path / "add" / "servable_config.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(
        RecordingNative, "answers", {"stop_requested": 0, "wait_ready": 'File "servable_config.py", line 12: oops'}
    )
    with pytest.raises(RuntimeError, match=r'servable_config\.py", line 12: oops'):
        server.start_servables(server.ServableStartConfig(str(tmp_path), "add", 0))
    assert (tmp_path / "serving_logs").is_dir()
    assert names(natives[0])[:3] == ["install_signal_handlers", "add_servable", "wait_ready"]
    assert "stop" in names(natives[0])


def test_a_signal_ends_starting(natives, tmp_path, monkeypatch):
    (tmp_path / "add" / "1").mkdir(parents=True)
    (tmp_path / "add" / "servable_config.py").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(RecordingNative, "answers", {"stop_requested": 2, "wait_ready": ""})
    with pytest.raises(RuntimeError, match="interrupted by signal SIGINT"):
        server.start_servables(server.ServableStartConfig(str(tmp_path), "add", 0))
    assert "stop" in names(natives[0])


def test_stop_is_idempotent(natives):
    server.stop()
    server.start_grpc_server("127.0.0.1:5500")
    server.stop()
    server.stop()
    assert names(natives[0]).count("stop") == 1


def test_the_limit_of_waiting_requests_is_checked(natives):
    for wrong in (0, -1, True, "1"):
        with pytest.raises(RuntimeError, match="max_enqueued_requests"):
            server.master.context.set_max_enqueued_requests(wrong)
    server.master.context.set_max_enqueued_requests(5)
    assert natives[-1].calls == [("set_max_enqueued_requests", 5)]


def test_the_limit_of_waiting_time_is_checked(natives):
    for wrong in (-1, True, "1", float("nan"), 86401, None):
        with pytest.raises(RuntimeError, match="seconds"):
            server.master.context.set_max_queue_seconds(wrong)
    server.master.context.set_max_queue_seconds(2)
    assert natives[-1].calls == [("set_max_queue_seconds", 2.0)]


def test_the_limit_of_bytes_in_flight_is_checked(natives):
    for wrong in (0, 1024, True, 2.0**30, 1 << 63):
        with pytest.raises(RuntimeError, match="max_bytes_in_flight"):
            server.master.context.set_max_bytes_in_flight(wrong)
    server.master.context.set_max_bytes_in_flight(1 << 30)
    assert natives[-1].calls == [("set_max_bytes_in_flight", 1 << 30)]


@pytest.mark.parametrize("text", ["0", "49", "two", "", "-1"])
def test_a_wrong_number_of_loops_is_refused(natives, monkeypatch, text):
    monkeypatch.setenv("MSSERVING_IO_THREADS", text)
    with pytest.raises(RuntimeError, match="MSSERVING_IO_THREADS should be a number from 1 to 48"):
        server.start_grpc_server("127.0.0.1:5500")


@pytest.mark.parametrize("text", ["1001", "-1", "5.0", "", "many"])
def test_a_wrong_time_of_looking_for_work_is_refused(natives, monkeypatch, text):
    monkeypatch.setenv("MSSERVING_SPIN_MICROSECONDS", text)
    with pytest.raises(RuntimeError, match=f"MSSERVING_SPIN_MICROSECONDS should be .* from 0 to 1000, .*'{text}'"):
        server.start_grpc_server("127.0.0.1:5500")


@pytest.mark.parametrize(("text", "seconds"), [(None, 1e-4), ("0", 0), ("1000", 1e-3)])
def test_the_time_of_looking_for_work_is_taken(natives, monkeypatch, text, seconds):
    monkeypatch.delenv("MSSERVING_SPIN_MICROSECONDS", raising=False)
    if text is not None:
        monkeypatch.setenv("MSSERVING_SPIN_MICROSECONDS", text)
    server.start_grpc_server("127.0.0.1:5500")
    assert natives[-1].spin_s == seconds


def test_the_number_of_loops_is_taken(natives, monkeypatch):
    monkeypatch.setenv("MSSERVING_IO_THREADS", "3")
    server.start_grpc_server("127.0.0.1:5500")
    assert natives[-1].io_threads == 3
