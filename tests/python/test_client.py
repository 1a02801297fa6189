"""The Python client against a real gRPC server that repeats or fails on demand."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from concurrent import futures

import grpc
import numpy as np
import pytest

from certificates import server_and_client
from mindspore_serving.client import Client, SSLConfig
from mindspore_serving.proto import ms_service_pb2 as pb
from mindspore_serving.proto import ms_service_pb2_grpc as pb_grpc


class Stub(pb_grpc.MSServiceServicer):
    """Method "echo" returns the inputs as outputs; "hold" does not answer until
    told; "reply" returns what the test has put into `reply`."""

    def __init__(self) -> None:
        self.request = pb.PredictRequest()
        self.reply = pb.PredictReply()
        self.arrived = threading.Event()
        self.released = threading.Event()

    def Predict(self, request, context):
        self.request = request
        method = request.servable_spec.method_name
        if method == "echo":
            return pb.PredictReply(servable_spec=request.servable_spec, instances=request.instances)
        if method == "hold":
            self.arrived.set()
            self.released.wait(60)
        if method == "abort":
            context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, "too much of it")
        return self.reply


@pytest.fixture
def service():
    return Stub()


def start(service, address, credentials=None):
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4))
    pb_grpc.add_MSServiceServicer_to_server(service, server)
    if credentials is None:
        port = server.add_insecure_port(address)
    else:
        port = server.add_secure_port(address, credentials)
    server.start()
    return server, port


@pytest.fixture
def address(service):
    server, port = start(service, "127.0.0.1:0")
    yield f"127.0.0.1:{port}"
    server.stop(None).wait()


@pytest.fixture
def make_client(address):
    clients = []

    def make(method="echo", **kwargs):
        clients.append(Client(address, "servable", method, **kwargs))
        return clients[-1]

    yield make
    for client in clients:
        client.close()


def sent_tensor(service, name="x"):
    return service.request.instances[0].items[name]


ALL_DTYPES = [
    ("bool", pb.MS_BOOL),
    ("int8", pb.MS_INT8),
    ("uint8", pb.MS_UINT8),
    ("int16", pb.MS_INT16),
    ("uint16", pb.MS_UINT16),
    ("int32", pb.MS_INT32),
    ("uint32", pb.MS_UINT32),
    ("int64", pb.MS_INT64),
    ("uint64", pb.MS_UINT64),
    ("float16", pb.MS_FLOAT16),
    ("float32", pb.MS_FLOAT32),
    ("float64", pb.MS_FLOAT64),
]


@pytest.mark.parametrize(("dtype", "number"), ALL_DTYPES)
@pytest.mark.parametrize("shape", [(), (1,), (3, 2), (2, 0)])
def test_arrays_keep_dtype_and_shape(make_client, service, dtype, number, shape):
    array = (np.arange(int(np.prod(shape)), dtype=np.int64) % 2).astype(dtype).reshape(shape)
    (result,) = make_client().infer({"x": array})
    assert sent_tensor(service).dtype == number
    assert list(sent_tensor(service).shape.dims) == list(shape)
    assert sent_tensor(service).data == array.tobytes()
    assert result["x"].dtype == array.dtype
    assert result["x"].shape == shape
    np.testing.assert_array_equal(result["x"], array)


def test_results_are_read_only(make_client):
    (result,) = make_client().infer({"x": np.ones(3)})
    assert not result["x"].flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        result["x"][0] = 2


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int32).reshape(2, 3).T,
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.arange(10, dtype=np.float32)[::2],
        np.arange(4, dtype=">i4"),
        np.array([1.5, -2.0], dtype=">f8"),
    ],
    ids=["transposed", "fortran", "strided", "big-endian int", "big-endian float"],
)
def test_arrays_of_any_layout_arrive_as_they_look(make_client, array):
    (result,) = make_client().infer({"x": array})
    assert result["x"].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(result["x"], array)


@pytest.mark.parametrize(
    ("value", "number", "dims", "data"),
    [
        (3, pb.MS_INT64, [1], np.int64(3).tobytes()),
        (2.5, pb.MS_FLOAT64, [1], np.float64(2.5).tobytes()),
        (True, pb.MS_BOOL, [1], b"\x01"),
        (2**64 - 1, pb.MS_UINT64, [1], b"\xff" * 8),
        (np.int8(3), pb.MS_INT8, [], b"\x03"),
        (np.float64(2.5), pb.MS_FLOAT64, [], np.float64(2.5).tobytes()),
        (np.longlong(3), pb.MS_INT64, [], np.int64(3).tobytes()),
    ],
)
def test_numbers(make_client, service, value, number, dims, data):
    make_client().infer({"x": value})
    assert sent_tensor(service).dtype == number
    assert list(sent_tensor(service).shape.dims) == dims
    assert sent_tensor(service).data == data


@pytest.mark.parametrize(("value", "number"), [("grün", pb.MS_STRING), ("", pb.MS_STRING), (b"\xff\x00", pb.MS_BYTES)])
def test_texts(make_client, service, value, number):
    (result,) = make_client().infer({"x": value})
    assert result["x"] == value
    assert sent_tensor(service).dtype == number
    assert list(sent_tensor(service).shape.dims) == [1]
    assert list(sent_tensor(service).bytes_val) == [value.encode() if isinstance(value, str) else value]


def test_several_texts_in_one_output_are_a_list(make_client, service):
    service.reply.instances.add().items["y"].CopyFrom(pb.Tensor(dtype=pb.MS_BYTES, bytes_val=[b"a", b"b"]))
    service.reply.instances[0].items["z"].CopyFrom(pb.Tensor(dtype=pb.MS_STRING))
    assert make_client("reply").infer({"x": 1}) == [{"y": [b"a", b"b"], "z": []}]


@pytest.mark.parametrize("value", [[1], (1,), None, np.bool_(True), bytearray(b"a"), {}, 1j])
def test_values_that_cannot_be_sent(make_client, value):
    with pytest.raises(RuntimeError, match=r"Not support value type .* of input 'x'"):
        make_client().infer({"x": value})


@pytest.mark.parametrize(
    "value", [np.array(["a"]), np.array([None]), np.array([1j]), np.longdouble(1), 2**64, -(2**63) - 1, np.array(b"a")]
)
def test_data_types_that_cannot_be_sent(make_client, value):
    with pytest.raises(RuntimeError, match=r"Unknown data type .* of input 'x'"):
        make_client().infer({"x": value})


@pytest.mark.parametrize("instances", [1, "x", None, [1], [{"x": 1}, None], iter([])])
def test_instances_that_are_no_maps(make_client, instances):
    with pytest.raises(RuntimeError, match="instance should be a map"):
        make_client().infer(instances)
    with pytest.raises(RuntimeError, match="instance should be a map"):
        make_client().infer_async(instances)


def test_input_names_are_str(make_client):
    with pytest.raises(RuntimeError, match="should be str"):
        make_client().infer({1: 1})


def test_spec_is_sent(make_client, service):
    make_client("echo", version_number=7).infer({"x": 1})
    spec = service.request.servable_spec
    assert (spec.name, spec.method_name, spec.version_number) == ("servable", "echo", 7)


@pytest.mark.parametrize("kind", [list, tuple])
def test_instances_come_back_in_order(make_client, kind):
    results = make_client().infer(kind({"x": np.int32(i)} for i in range(20)))
    assert [int(result["x"]) for result in results] == list(range(20))


def test_no_errors_for_instances_that_succeed(make_client, service):
    service.reply.instances.add().items["y"].CopyFrom(pb.Tensor(dtype=pb.MS_STRING, bytes_val=[b"fine"]))
    service.reply.instances.add()
    service.reply.error_msg.add()
    service.reply.error_msg.add(error_code=2, error_msg="Preprocess Failed: größer".encode())
    assert make_client("reply").infer([{}, {}]) == [{"y": "fine"}, {"error": "Preprocess Failed: größer"}]


def test_failure_of_the_whole_request_is_one_dict(make_client, service):
    service.reply.error_msg.add(error_code=5, error_msg=b"servable is not available")
    assert make_client("reply").infer([{}, {}]) == {"error": "servable is not available"}
    assert make_client("reply").infer_async([{}, {}]).result() == {"error": "servable is not available"}


@pytest.mark.parametrize(("errors", "instances"), [(2, 0), (1, 2), (2, 3), (3, 1)])
def test_inconsistent_error_count(make_client, service, errors, instances):
    for _ in range(errors):
        service.reply.error_msg.add(error_code=1)
    for _ in range(instances):
        service.reply.instances.add()
    with pytest.raises(RuntimeError, match=f"{errors} errors for {instances} instances"):
        make_client("reply").infer({})
    with pytest.raises(RuntimeError, match=f"{errors} errors for {instances} instances"):
        make_client("reply").infer_async({}).result()


@pytest.mark.parametrize(
    "tensor",
    [
        pb.Tensor(dtype=pb.MS_FLOAT32, data=b"abc"),
        pb.Tensor(dtype=pb.MS_UINT8, data=b"abcd", shape=pb.TensorShape(dims=[-2, -2])),
        pb.Tensor(dtype=pb.MS_UINT8, data=b"abcd", shape=pb.TensorShape(dims=[3])),
    ],
)
def test_replies_whose_bytes_do_not_fit(make_client, service, tensor):
    service.reply.instances.add().items["y"].CopyFrom(tensor)
    with pytest.raises(RuntimeError, match=r"Output 'y' has . bytes of data"):
        make_client("reply").infer({})


def test_replies_of_unknown_dtype(make_client, service):
    service.reply.instances.add().items["y"].CopyFrom(pb.Tensor(dtype=99))
    with pytest.raises(RuntimeError, match="Unknown data type 99 of output 'y'"):
        make_client("reply").infer({})


@pytest.mark.parametrize("call", ["infer", "infer_async"])
def test_transport_failures_are_told_in_one_form(make_client, call, caplog):
    def run(client):
        result = getattr(client, call)({"x": 1})
        return result if call == "infer" else result.result()

    with caplog.at_level(logging.WARNING, "mindspore_serving.client"):
        assert run(make_client("abort")) == {"error": "Grpc Error, (8, 'resource exhausted'), too much of it"}
    assert "too much of it" in caplog.text
    with Client("127.0.0.1:1", "servable", "echo") as nobody:
        assert run(nobody)["error"].startswith("Grpc Error, (14, 'unavailable'), ")


def test_call_cancelled_by_close_is_told_in_the_same_form(address, service):
    client = Client(address, "servable", "hold")
    pending = client.infer_async({"x": 1})
    assert service.arrived.wait(10)
    client.close()
    assert pending.result()["error"].startswith("Grpc Error, (1, 'cancelled'), ")
    service.released.set()


def test_async_calls_are_under_way_together(make_client):
    client = make_client()
    pending = [client.infer_async({"x": np.int32(i)}) for i in range(32)]
    assert [int(one.result()[0]["x"]) for one in pending] == list(range(32))


# Imported by a script, it shows when gRPC's thread takes an answer, which it does with the request's lock held.
SLOW = """
import threading, time
from grpc import _channel
handle, taking = _channel._handle_event, threading.Event()
def slowly(*arguments):
    taking.set()
    time.sleep(0.5)
    return handle(*arguments)
_channel._handle_event = slowly
"""


def run_while_an_answer_is_being_taken(folder, script):
    (folder / "slow.py").write_text(SLOW)
    path = folder / "client.py"
    path.write_text(script)
    subprocess.run([sys.executable, str(path)], timeout=60, check=True)


def test_a_script_may_end_while_an_answer_is_being_taken(address, tmp_path):
    run_while_an_answer_is_being_taken(
        tmp_path,
        "import slow\n"
        "from mindspore_serving.client import Client\n"
        f"pending = Client({address!r}, 'servable', 'echo').infer_async({{'x': 1}})\n"
        "assert slow.taking.wait(20)\n",
    )


def test_a_script_may_ask_when_it_ends_already(address, tmp_path):
    run_while_an_answer_is_being_taken(
        tmp_path,
        "import atexit\n"
        "@atexit.register\n"
        "def ask():\n"
        "    global pending\n"
        "    pending = client.infer_async({'x': 1})\n"
        "    assert slow.taking.wait(20)\n"
        "import slow\n"
        "from mindspore_serving.client import Client\n"
        f"client = Client({address!r}, 'servable', 'echo')\n",
    )


def test_a_forked_child_may_end_whatever_its_parent_was_doing(address, tmp_path):
    run_while_an_answer_is_being_taken(
        tmp_path,
        "import os, sys\n"
        "import slow\n"
        "from mindspore_serving.client import Client\n"
        f"pending = Client({address!r}, 'servable', 'echo').infer_async({{'x': 1}})\n"
        "assert slow.taking.wait(20)\n"
        "child = os.fork()\n"
        "if not child:\n"
        "    sys.exit(7)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7\n",
    )


def test_a_forked_child_may_have_a_client_of_its_own(address, tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        "import os\n"
        "from mindspore_serving.client import Client\n"
        "def ask(client):\n"
        "    return client.infer({'x': 1})[0]['x']\n"
        f"client = Client({address!r}, 'servable', 'echo')\n"
        "assert ask(client) == 1\n"
        "child = os.fork()\n"
        f"assert ask(client if child else Client({address!r}, 'servable', 'echo')) == 1\n"
        "if child:\n"
        "    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
    )
    subprocess.run([sys.executable, str(script)], timeout=60, check=True)


def test_a_script_may_end_while_a_request_is_under_way(address, service, tmp_path):
    script = tmp_path / "client.py"
    script.write_text(
        "from mindspore_serving.client import Client\n"
        f"pending = Client({address!r}, 'servable', 'hold').infer_async({{'x': 1}})\n"
        f"Client({address!r}, 'servable', 'echo').infer({{'x': 1}})\n"
    )
    subprocess.run([sys.executable, str(script)], timeout=50, check=True)  # the answer would come after 60
    service.released.set()


def test_messages_beyond_grpc_default_limit_pass(service):
    server = grpc.server(
        futures.ThreadPoolExecutor(max_workers=1),
        options=[("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)],
    )
    pb_grpc.add_MSServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    big = np.arange(2 << 20, dtype=np.float32)
    with Client(f"127.0.0.1:{port}", "servable", "echo") as client:
        (result,) = client.infer({"x": big})
        np.testing.assert_array_equal(result["x"], big)
    server.stop(None).wait()


def test_unix_address(service, tmp_path):
    server, _ = start(service, f"unix:{tmp_path}/socket")
    with Client(f"unix:{tmp_path}/socket", "servable", "echo") as client:
        assert client.infer({"x": "a"}) == [{"x": "a"}]
    server.stop(None).wait()


def test_attributes(address):
    with Client(address, "servable", "method", 3) as client:
        assert (client.address, client.servable_name, client.method_name) == (address, "servable", "method")
        assert client.version_number == 3
        assert isinstance(client.channel, grpc.Channel)
        assert isinstance(client.stub, pb_grpc.MSServiceStub)
        del client.stub


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, "s", "m"), "'address' should be str"),
        (("", "s", "m"), "'address' should not be empty str"),
        (("a", None, "m"), "'servable_name' should be str"),
        (("a", "", "m"), "'servable_name' should not be empty str"),
        (("a", "s", b"m"), "'method_name' should be str"),
        (("a", "s", ""), "'method_name' should not be empty str"),
        (("a", "s", "m", -1), "'version_number' should be >= 0"),
        (("a", "s", "m", True), "'version_number' should be int"),
        (("a", "s", "m", "1"), "'version_number' should be int"),
        (("a", "s", "m", 2**64), r"'version_number' should be < 2\*\*64"),
        (("a", "s", "m", 0, "tls"), "'ssl_config' should be"),
    ],
)
def test_bad_parameters(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        Client(*arguments)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"certificate": "a"}, "'private_key' is None"),
        ({"private_key": "a"}, "'certificate' is None"),
        ({"custom_ca": ""}, "'custom_ca' should not be empty str"),
        ({"certificate": 1, "private_key": "a"}, "'certificate' should be str"),
    ],
)
def test_bad_ssl_parameters(arguments, message):
    with pytest.raises(RuntimeError, match=message):
        SSLConfig(**arguments)


def test_missing_ssl_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no\.pem"):
        Client("localhost:1", "s", "m", ssl_config=SSLConfig(custom_ca=str(tmp_path / "no.pem")))


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The folder of an authority, a server's and a client's certificates."""
    return server_and_client(tmp_path_factory.mktemp("certificates")).folder


def test_tls_one_way_and_mutual(service, certificates):
    def read(name):
        return (certificates / name).read_bytes()

    def path(name):
        return str(certificates / name)

    pair = [(read("server.key"), read("server.crt"))]
    one_way = start(service, "127.0.0.1:0", grpc.ssl_server_credentials(pair))
    mutual = start(
        service,
        "127.0.0.1:0",
        grpc.ssl_server_credentials(pair, root_certificates=read("ca.crt"), require_client_auth=True),
    )
    known = SSLConfig(custom_ca=path("ca.crt"))
    proven = SSLConfig(path("client.crt"), path("client.key"), path("ca.crt"))
    outcomes = []
    for (_, port), config in [(one_way, known), (mutual, proven), (mutual, known), (one_way, None)]:
        with Client(f"localhost:{port}", "servable", "echo", ssl_config=config) as client:
            outcomes.append(client.infer({"x": "a"}))
    assert outcomes[:2] == [[{"x": "a"}], [{"x": "a"}]]
    for outcome in outcomes[2:]:
        assert outcome["error"].startswith("Grpc Error, (14, 'unavailable'), ")
    for server, _ in (one_way, mutual):
        server.stop(None).wait()
