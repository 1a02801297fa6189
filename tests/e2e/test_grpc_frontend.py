"""The gRPC front-end alone, against grpcio: the echo program of benchmarks/frontend, no worker and no model."""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import pytest

from servers import free_port

ROOT = Path(__file__).resolve().parents[2]
UNLIMITED = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


def echo_program() -> Path:
    """The one that MSSERVING_FRONTEND_ECHO names, or that of the release build."""
    return Path(os.environ.get("MSSERVING_FRONTEND_ECHO", ROOT / "build/release/benchmarks/frontend_echo"))


pytestmark = pytest.mark.skipif(
    not echo_program().exists(), reason=f"{echo_program()} is not built: cmake --build --preset release"
)


class EchoServer:
    def __init__(self, *arguments: str) -> None:
        self.port = free_port()
        command = [str(echo_program()), "--port", str(self.port), *arguments]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        assert self.process.stdout.readline() == f"ready on port {self.port}\n"

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def stop(self) -> None:
        """Ends it; a crash, or a sanitizer's report, is a failure."""
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process.terminate()
        assert self.process.wait(timeout=20) == 0


@pytest.fixture
def start() -> Iterator[Callable[..., EchoServer]]:
    servers: list[EchoServer] = []

    def start_one(*arguments: str) -> EchoServer:
        servers.append(EchoServer(*arguments))
        return servers[-1]

    yield start_one
    for server in servers:
        server.stop()


@pytest.fixture
def channel(start: Callable[..., EchoServer]) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(start().address, options=UNLIMITED) as opened:
        yield opened


def failure(call: Callable[[], bytes]) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.RpcError) as raised:
        call()
    return raised.value.code(), raised.value.details()  # type: ignore[attr-defined]


@pytest.mark.parametrize("size", [0, 1, 100, 16_384, 1_000_000])
def test_echo(channel: grpc.Channel, size: int) -> None:
    message = os.urandom(size)
    assert channel.unary_unary("/echo/Echo")(message, timeout=20) == message


def test_hundred_megabytes(channel: grpc.Channel) -> None:
    message = os.urandom(1 << 20) * 100
    assert channel.unary_unary("/echo/Echo")(message, timeout=60) == message


def test_larger_than_the_limit(channel: grpc.Channel) -> None:
    message = bytes((100 << 20) + 1)
    code, details = failure(lambda: channel.unary_unary("/echo/Echo")(message, timeout=60))
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
    assert details == f"Received message larger than max ({len(message)} vs. {100 << 20})"
    assert channel.unary_unary("/echo/Echo")(b"still here", timeout=20) == b"still here"


def test_limit_of_the_client_is_the_clients(start: Callable[..., EchoServer]) -> None:
    with grpc.insecure_channel(start().address) as channel:
        code, _ = failure(lambda: channel.unary_unary("/echo/Echo")(bytes(5 << 20), timeout=20))
        assert code == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert channel.unary_unary("/echo/Echo")(b"still here", timeout=20) == b"still here"


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_compressed(channel: grpc.Channel, compression: grpc.Compression) -> None:
    message = b"compress me " * 100_000
    # That the reply to gzip is gzip is checked on the wire by the C++ tests; grpcio does not show it.
    assert channel.unary_unary("/echo/Echo")(message, timeout=20, compression=compression) == message


def test_bomb(channel: grpc.Channel) -> None:
    code, _ = failure(
        lambda: channel.unary_unary("/echo/Echo")(bytes(101 << 20), timeout=60, compression=grpc.Compression.Gzip)
    )
    assert code == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_unknown_method(channel: grpc.Channel) -> None:
    assert failure(lambda: channel.unary_unary("/echo/None")(b"x", timeout=20)) == (
        grpc.StatusCode.UNIMPLEMENTED,
        "unknown method /echo/None",
    )


def test_error_text_arrives_as_it_was_written(channel: grpc.Channel) -> None:
    code, details = failure(lambda: channel.unary_unary("/echo/Fail")(b"x", timeout=20))
    assert code == grpc.StatusCode.INVALID_ARGUMENT
    assert details == "50 % of \u00fc\n"


def test_deadline(channel: grpc.Channel) -> None:
    began = time.monotonic()
    code, _ = failure(lambda: channel.unary_unary("/echo/Never")(b"x", timeout=0.2))
    assert code == grpc.StatusCode.DEADLINE_EXCEEDED
    assert 0.15 < time.monotonic() - began < 5
    assert channel.unary_unary("/echo/Late")(b"in time", timeout=20) == b"in time"


def test_cancelled_calls_leave_the_others_alone(channel: grpc.Channel) -> None:
    never = [channel.unary_unary("/echo/Never").future(b"x") for _ in range(50)]
    late = [channel.unary_unary("/echo/Late").future(b"%d" % i, timeout=20) for i in range(50)]
    for call in never:
        assert call.cancel()
    assert [call.result() for call in late] == [b"%d" % i for i in range(50)]
    assert all(call.code() == grpc.StatusCode.CANCELLED for call in never)


def test_client_streaming_is_not_unary(channel: grpc.Channel) -> None:
    with pytest.raises(grpc.RpcError) as raised:
        channel.stream_unary("/echo/Echo")(iter([b"one", b"two"]), timeout=20)
    assert raised.value.code() == grpc.StatusCode.UNIMPLEMENTED  # type: ignore[attr-defined]


def test_thousand_calls_at_once(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/echo/Late")
    futures = [call.future(b"message %d" % i, timeout=60) for i in range(1000)]
    assert [future.result() for future in futures] == [b"message %d" % i for i in range(1000)]


def test_many_connections_on_two_loops(start: Callable[..., EchoServer]) -> None:
    server = start("--threads", "2")

    def run(number: int) -> int:
        # A pool of its own: channels to one address would share a connection.
        options = [("grpc.use_local_subchannel_pool", 1)]
        with grpc.insecure_channel(server.address, options=options) as channel:
            call = channel.unary_unary("/echo/Echo")
            return sum(call(b"%d %d" % (number, i), timeout=30) == b"%d %d" % (number, i) for i in range(20))

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(run, range(64))) == 64 * 20


def test_drain_finishes_running_calls_and_takes_no_new_connection(start: Callable[..., EchoServer]) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        late = [channel.unary_unary("/echo/Late").future(b"%d" % i, timeout=20) for i in range(100)]
        assert channel.unary_unary("/echo/Echo")(b"x", timeout=20) == b"x"  # all have arrived before this one
        server.process.send_signal(signal.SIGUSR1)
        assert [call.result() for call in late] == [b"%d" % i for i in range(100)]
        deadline = time.monotonic() + 10
        while failure_or_none(channel) is None and time.monotonic() < deadline:
            time.sleep(0.05)
        assert failure_or_none(channel) == grpc.StatusCode.UNAVAILABLE


def failure_or_none(channel: grpc.Channel) -> grpc.StatusCode | None:
    try:
        channel.unary_unary("/echo/Echo")(b"x", timeout=5)
    except grpc.RpcError as error:
        return error.code()  # type: ignore[attr-defined, no-any-return]
    return None


def test_keepalive_pings_keep_a_quiet_call_alive(start: Callable[..., EchoServer]) -> None:
    options = [
        ("grpc.keepalive_time_ms", 100),
        ("grpc.keepalive_timeout_ms", 2000),
        ("grpc.keepalive_permit_without_calls", 1),
        ("grpc.http2.max_pings_without_data", 0),
        ("grpc.http2.min_time_between_pings_ms", 100),
    ]
    with grpc.insecure_channel(start().address, options=options) as channel:
        states: list[grpc.ChannelConnectivity] = []
        channel.subscribe(states.append, try_to_connect=True)
        grpc.channel_ready_future(channel).result(timeout=20)
        code, _ = failure(lambda: channel.unary_unary("/echo/Never")(b"x", timeout=3))
        assert code == grpc.StatusCode.DEADLINE_EXCEEDED  # not UNAVAILABLE: no ping went unanswered
        assert channel.unary_unary("/echo/Echo")(b"x", timeout=20) == b"x"
        assert grpc.ChannelConnectivity.TRANSIENT_FAILURE not in states


def test_restarted_server_is_found_again(start: Callable[..., EchoServer]) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        assert channel.unary_unary("/echo/Echo")(b"x", timeout=20) == b"x"
        server.stop()
        assert failure_or_none(channel) == grpc.StatusCode.UNAVAILABLE


def test_quiet_server_uses_no_processor_time(start: Callable[..., EchoServer]) -> None:
    server = start()
    with grpc.insecure_channel(server.address) as channel:
        never = channel.unary_unary("/echo/Never").future(b"x", timeout=60)
        assert channel.unary_unary("/echo/Echo")(b"x", timeout=20) == b"x"
        with socket.create_connection(("127.0.0.1", server.port)) as half:
            half.sendall(b"PRI * HTTP")
            half.shutdown(socket.SHUT_WR)
            before = server.cpu_seconds()
            time.sleep(1.5)
            assert server.cpu_seconds() - before < 0.1
        never.cancel()


def make_certificates(folder: Path) -> None:
    def openssl(*arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=folder, check=True, capture_output=True)

    key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes")
    openssl("req", "-x509", *key, "-keyout", "ca.key", "-out", "ca.pem", "-subj", "/CN=test authority", "-days", "2")
    (folder / "names").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
    for name in ("server", "client"):
        openssl("req", *key, "-keyout", f"{name}.key", "-out", f"{name}.csr", "-subj", f"/CN={name}")
        sign = ("-CA", "ca.pem", "-CAkey", "ca.key", "-CAcreateserial", "-days", "2", "-extfile", "names")
        openssl("x509", "-req", "-in", f"{name}.csr", "-out", f"{name}.pem", *sign)


def test_tls_with_certificates_on_both_sides(start: Callable[..., EchoServer], tmp_path: Path) -> None:
    make_certificates(tmp_path)
    read = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    both = ("--cert", str(tmp_path / "server.pem"), "--key", str(tmp_path / "server.key"))
    message = os.urandom(1 << 20) * 20

    one_sided = grpc.ssl_channel_credentials(read["ca.pem"])
    with grpc.secure_channel(start(*both).address, one_sided, options=UNLIMITED) as channel:
        assert channel.unary_unary("/echo/Echo")(message, timeout=60) == message
        futures = [channel.unary_unary("/echo/Late").future(b"%d" % i, timeout=30) for i in range(200)]
        assert [future.result() for future in futures] == [b"%d" % i for i in range(200)]

    strict = start(*both, "--ca", str(tmp_path / "ca.pem"))
    known = grpc.ssl_channel_credentials(read["ca.pem"], read["client.key"], read["client.pem"])
    with grpc.secure_channel(strict.address, known, options=UNLIMITED) as channel:
        assert channel.unary_unary("/echo/Echo")(message, timeout=60) == message
    with grpc.secure_channel(strict.address, one_sided) as channel:
        code, _ = failure(lambda: channel.unary_unary("/echo/Echo")(b"x", timeout=10))
        assert code == grpc.StatusCode.UNAVAILABLE


def test_clients_that_vanish_in_the_middle(start: Callable[..., EchoServer]) -> None:
    server = start()
    stop = threading.Event()

    def vanish() -> None:
        while not stop.is_set():
            options = [("grpc.use_local_subchannel_pool", 1), *UNLIMITED]
            channel = grpc.insecure_channel(server.address, options=options)
            channel.unary_unary("/echo/Echo").future(bytes(5 << 20))
            channel.unary_unary("/echo/Never").future(b"x")
            time.sleep(0.01)
            channel.close()

    thread = threading.Thread(target=vanish)
    thread.start()
    try:
        with grpc.insecure_channel(server.address) as channel:
            for i in range(300):
                assert channel.unary_unary("/echo/Echo")(b"%d" % i, timeout=20) == b"%d" % i
    finally:
        stop.set()
        thread.join()
