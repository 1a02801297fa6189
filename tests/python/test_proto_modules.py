"""The shipped Python modules say what proto/ms_service.proto says."""

from __future__ import annotations

import importlib.util
import pathlib

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool

from mindspore_serving.proto import ms_service_pb2 as pb
from mindspore_serving.proto import ms_service_pb2_grpc as pb_grpc

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load_generator():
    spec = importlib.util.spec_from_file_location("generate", ROOT / "proto" / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_modules_are_up_to_date(tmp_path):
    generator = load_generator()
    compiled, _ = generator.compile_proto(tmp_path)
    shipped = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(shipped)
    assert shipped == compiled
    for path, text in generator.generate().items():
        if path.suffix in (".py", ".cc"):  # protoc's type stubs vary with its release
            assert path.read_text() == text, f"{path} is out of date: run proto/generate.py"


def test_field_numbers_are_those_of_every_release():
    def numbers(message):
        return {field.name: field.number for field in message.DESCRIPTOR.fields}

    assert pb.DESCRIPTOR.name == "mindspore_serving/proto/ms_service.proto"
    assert pb.DESCRIPTOR.package == "mindspore.serving.proto"
    assert numbers(pb.PredictRequest) == {"servable_spec": 1, "instances": 2}
    assert numbers(pb.PredictReply) == {"servable_spec": 1, "instances": 3, "error_msg": 4}
    assert numbers(pb.ServableSpec) == {"name": 1, "method_name": 2, "version_number": 3}
    assert numbers(pb.Instance) == {"items": 1}
    assert numbers(pb.Tensor) == {"shape": 1, "dtype": 2, "data": 3, "bytes_val": 4}
    assert numbers(pb.TensorShape) == {"dims": 1}
    assert numbers(pb.ErrorMsg) == {"error_code": 1, "error_msg": 2}
    assert pb.DataType.items() == [
        (f"MS_{name}", number)
        for number, name in enumerate(
            "UNKNOWN BOOL INT8 UINT8 INT16 UINT16 INT32 UINT32 INT64 UINT64 "
            "FLOAT16 FLOAT32 FLOAT64 STRING BYTES".split()
        )
    ]


def test_descriptor_can_be_registered_again():
    """A program may carry its own copy of the file: the same bytes under the same name do not clash."""
    again = descriptor_pool.Default().AddSerializedFile(pb.DESCRIPTOR.serialized_pb)
    assert again.name == pb.DESCRIPTOR.name


def test_stub_calls_the_documented_path():
    class Channel:
        def unary_unary(self, path, request_serializer, response_deserializer):
            self.path = path

    channel = Channel()
    pb_grpc.MSServiceStub(channel)
    assert channel.path == "/mindspore.serving.proto.MSService/Predict"


def test_servicer_that_implements_nothing_says_so():
    from concurrent import futures

    server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
    pb_grpc.add_MSServiceServicer_to_server(pb_grpc.MSServiceServicer(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        try:
            pb_grpc.MSServiceStub(channel).Predict(pb.PredictRequest())
            raise AssertionError("should have failed")
        except grpc.RpcError as error:
            assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    server.stop(None).wait()
