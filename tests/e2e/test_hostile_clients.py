"""What one client does wrong is its own trouble: others are answered meanwhile, by the same processes."""

import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import requests

import raw_http2 as h2
from mindspore_serving.client import Client
from mindspore_serving.proto import ms_service_pb2 as pb
from servables import add_config, make_script, make_servable
from servers import ServerProcess

MIB = 1 << 20
LIMIT_MB = 8
GROWTH_LIMIT_MB = 120  # of the server process, over one test here


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, models: Path) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("hostile")
    make_servable(folder, "adder", add_config("add", checked=True), {1: models / "add.mindir"})
    limit = f", max_msg_mb_size={LIMIT_MB}"
    with ServerProcess(make_script(folder, ['"adder"'], grpc_arguments=limit, rest_arguments=limit)) as running:
        yield running


def resident_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


@contextmanager
def others_are_answered(server: ServerProcess) -> Iterator[None]:
    """A polite client over gRPC and one over REST all the while; the same processes at the end, and not much larger."""
    pids, before = server.pids(), resident_mb(server.pid)
    stop, failures, answered = threading.Event(), [], [0, 0]

    def over_grpc() -> None:
        client, random = Client(server.grpc_address, "adder", "add"), np.random.default_rng(1)
        while not stop.is_set():
            one = {name: random.random((2, 2), np.float32) for name in ("x1", "x2")}
            answer = client.infer(one)
            if "error" in answer or not np.array_equal(answer[0]["y"], one["x1"] + one["x2"]):
                failures.append(answer)
            answered[0] += 1
            time.sleep(0.002)

    def over_rest() -> None:
        body = {"instances": [{"x1": [[1.0, 2.0], [3.0, 4.0]], "x2": [[1.0, 1.0], [1.0, 1.0]]}]}
        while not stop.is_set():
            answer = requests.post(f"http://{server.rest_address}/model/adder:add", json=body, timeout=30)
            if answer.json() != {"instances": [{"y": [[2.0, 3.0], [4.0, 5.0]]}]}:
                failures.append(answer.text)
            answered[1] += 1
            time.sleep(0.002)

    threads = [threading.Thread(target=over_grpc), threading.Thread(target=over_rest)]
    for thread in threads:
        thread.start()
    while min(answered) < 3 and not failures:
        time.sleep(0.01)
    marks = list(answered)
    try:
        yield
        deadline = time.monotonic() + 20
        while any(now < mark + 20 for now, mark in zip(answered, marks, strict=True)) and not failures:
            assert time.monotonic() < deadline, f"polite clients starve: {marks} -> {answered}"
            time.sleep(0.01)
    finally:
        stop.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures[:3]
    assert server.pids() == pids, server.log + server.worker_logs()
    grown = resident_mb(server.pid) - before
    assert grown < GROWTH_LIMIT_MB, f"the server grew by {grown:.0f} MiB"


def grpc_frame(message: bytes) -> bytes:
    return struct.pack(">BI", 0, len(message)) + message


def predict_message(size: int = 4) -> bytes:
    request = pb.PredictRequest()
    request.servable_spec.name, request.servable_spec.method_name = "adder", "add"
    items = request.instances.add().items
    for name in ("x1", "x2"):
        tensor = items[name]
        tensor.dtype = pb.MS_FLOAT32
        tensor.shape.dims.extend([2, size // 2])
        tensor.data = np.ones(size, np.float32).tobytes()
    return request.SerializeToString()


# ---------------------------------------------------------------------------------------------- garbage
@pytest.mark.parametrize("kind", ["grpc", "rest"])
def test_Garbage_ClosesThatConnectionAlone(server, kind):
    address = server.grpc_address if kind == "grpc" else server.rest_address
    random = np.random.default_rng(3)
    with others_are_answered(server):
        for length in (1, 9, 100, 10_000, 1_000_000):
            with h2.connect(address) as connection:
                try:
                    connection.sendall(random.bytes(length) + b"\r\n\r\n")
                except ConnectionError:
                    continue  # closed on us meanwhile
                assert length < 9 or h2.is_closed(connection), f"still open after {length} bytes of garbage"


def test_GarbageAfterTheGreeting_ClosesThatConnectionAlone(server):
    random = np.random.default_rng(4)
    with others_are_answered(server):
        for _ in range(20):
            with h2.open_connection(server.grpc_address) as connection:
                kind, flags = int(random.integers(0, 12)), int(random.integers(0, 256))
                try:
                    for stream in (0, 1, 2, 3):
                        connection.sendall(h2.frame(kind, flags, stream, random.bytes(int(random.integers(0, 200)))))
                except ConnectionError:
                    continue


def test_GarbageAsMessage_IsAnErrorOfThatCall(server):
    import grpc

    random = np.random.default_rng(5)
    with others_are_answered(server), grpc.insecure_channel(server.grpc_address) as channel:
        call = channel.unary_unary("/mindspore.serving.proto.MSService/Predict")
        good = predict_message()
        for number in range(200):
            message = bytearray(good)
            for position in random.integers(0, len(message), 3):
                message[position] = random.integers(0, 256)
            if number % 2:
                message = random.bytes(int(random.integers(1, 300)))
            try:
                pb.PredictReply.FromString(call(bytes(message), timeout=20))
            except grpc.RpcError as error:
                assert error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED), error


# ---------------------------------------------------------------------------------------------- halves
def test_HalfRequests_HarmNobody(server):
    body = grpc_frame(predict_message())
    request = h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.predict_headers()) + h2.frame(h2.DATA, 0, 1, body)
    http1 = b'POST /model/adder:add HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n{"instances"'
    open_ones = []
    with others_are_answered(server):
        for cut in range(1, len(request), 7):
            open_ones.append(h2.open_connection(server.grpc_address))
            open_ones[-1].sendall(request[:cut])
        for cut in range(1, len(http1), 5):
            open_ones.append(h2.connect(server.rest_address))
            open_ones[-1].sendall(http1[:cut])
        for number, connection in enumerate(open_ones):
            if number % 2:
                connection.close()  # half of them go away, half of them just sit there
    for connection in open_ones:
        connection.close()


def test_GoingAwayMidRequest_HarmsNobody(server):
    body = grpc_frame(predict_message())
    with others_are_answered(server):
        for number in range(300):
            connection = h2.open_connection(server.grpc_address)
            for stream in range(1, 2 * (1 + number % 8), 2):
                connection.sendall(
                    h2.frame(h2.HEADERS, h2.END_HEADERS, stream, h2.predict_headers())
                    + h2.frame(h2.DATA, h2.END_STREAM, stream, body)
                )
                if number % 3 == 0:
                    connection.sendall(h2.frame(h2.RST_STREAM, 0, stream, struct.pack(">I", 8)))
            connection.close()
        rest = b'{"instances":[{"x1":[[1.0,2.0],[3.0,4.0]],"x2":[[1.0,1.0],[1.0,1.0]]}]}'
        head = b"POST /model/adder:add HTTP/1.1\r\nHost: test\r\nContent-Length: %d\r\n\r\n" % len(rest)
        for number in range(300):
            connection = h2.connect(server.rest_address)
            connection.sendall((head + rest) * (1 + number % 5))
            connection.close()


# ---------------------------------------------------------------------------------------------- too much
def test_MessageOf200MB_IsRefused(server):
    huge = {name: np.zeros((2, 25 * MIB // 2), np.float32) for name in ("x1", "x2")}
    with others_are_answered(server):
        answer = Client(server.grpc_address, "adder", "add").infer(huge)
        assert "(8, 'resource exhausted')" in answer["error"]


def test_DeclaredLengthOf4GB_TakesNoMemory(server):
    with others_are_answered(server):
        connections = []
        for _ in range(50):
            connection = h2.open_connection(server.grpc_address)
            connection.sendall(
                h2.frame(h2.HEADERS, h2.END_HEADERS, 1, h2.predict_headers())
                + h2.frame(h2.DATA, 0, 1, struct.pack(">BI", 0, 0xFFFFFFFF) + b"x" * 1000)
            )
            connections.append(connection)
        time.sleep(0.5)
        for connection in connections:
            connection.close()


@pytest.mark.parametrize("chunked", [False, True])
def test_RestBodyOf200MB_Is413(server, chunked):
    block = b"1" * MIB
    url = f"http://{server.rest_address}/model/adder:add"
    with others_are_answered(server):
        try:
            body = (block for _ in range(200)) if chunked else block * 200
            answer = requests.post(url, data=body, timeout=60)
            assert answer.status_code == 413
            assert "http message is bigger than" in answer.json()["error_msg"]
        except requests.exceptions.ConnectionError:
            pass  # closed while the body was still being sent: refused as well


def test_MillionHeaders_CloseThatConnectionAlone(server):
    field = h2.literal(b"x-header", b"v" * 20)
    block = field * 500
    with others_are_answered(server), h2.open_connection(server.grpc_address) as connection:
        refused = False
        try:
            connection.sendall(h2.frame(h2.HEADERS, 0, 1, h2.predict_headers()))
            for _ in range(2000):
                connection.sendall(h2.frame(h2.CONTINUATION, 0, 1, block))
        except ConnectionError:
            refused = True
        assert refused or h2.is_closed(connection)


def test_MillionHttp1Headers_CloseThatConnectionAlone(server):
    with others_are_answered(server), h2.connect(server.rest_address) as connection:
        refused = False
        try:
            connection.sendall(b"POST /model/adder:add HTTP/1.1\r\nHost: test\r\n")
            for _ in range(1000):
                connection.sendall(b"x-header: value\r\n" * 1000)
        except ConnectionError:
            refused = True
        assert refused or h2.is_closed(connection)


def test_DeeplyNestedJson_IsAnError(server):
    with others_are_answered(server):
        for body in (b"[" * 100_000, b'{"instances":[' * 10_000, b'{"instances":[{"x1":' + b"[" * 50_000):
            answer = requests.post(f"http://{server.rest_address}/model/adder:add", data=body, timeout=30)
            assert answer.status_code == 400
            assert answer.json()["error_msg"]


def test_HundredsOfIdleConnections_LeaveNoTrace(server):
    with others_are_answered(server):
        before = len(os.listdir(f"/proc/{server.pid}/fd"))
        idle = [h2.open_connection(server.grpc_address) for _ in range(250)]
        idle += [h2.connect(server.rest_address) for _ in range(250)]
        for connection in idle:
            connection.close()
        deadline = time.monotonic() + 20
        while len(os.listdir(f"/proc/{server.pid}/fd")) > before + 10 and time.monotonic() < deadline:
            time.sleep(0.05)
        assert len(os.listdir(f"/proc/{server.pid}/fd")) <= before + 10
