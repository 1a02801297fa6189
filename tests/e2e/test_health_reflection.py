"""grpc.health.v1 and server reflection of a running server, as grpcio and its tools use them."""

import queue
import signal
import threading
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf import descriptor_pool, message_factory
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from mindspore_serving.proto import ms_service_pb2 as pb
from servables import make_servable
from servers import ServerProcess

CONFIG = """
from mindspore_serving.server import register


def negated(x):
    return -x


@register.register_method(output_names=["y"])
def negate(x):
    y = register.add_stage(negated, x, outputs_count=1)
    return y
"""

SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
server.start_servables(server.ServableStartConfig(folder, "signs"))
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
"""


def make_server(folder: Path, *, grpc_first: bool = False) -> ServerProcess:
    make_servable(folder, "signs", CONFIG, {})
    script = folder / "start.py"
    lines = SCRIPT.splitlines()
    script.write_text("\n".join([*lines[:-2], lines[-1], lines[-2]] if grpc_first else lines))
    return ServerProcess(script, listens=("gRPC",))


class Reflected:
    """Messages of a server that this program knows nothing about but its address."""

    def __init__(self, channel: grpc.Channel) -> None:
        self.database = ProtoReflectionDescriptorDatabase(channel)
        self.pool = descriptor_pool.DescriptorPool(self.database)

    def message(self, name: str) -> type:
        return message_factory.GetMessageClass(self.pool.FindMessageTypeByName(name))


def test_ReflectionTellsEnoughToCall(tmp_path: Path) -> None:
    with make_server(tmp_path) as server, grpc.insecure_channel(server.grpc_address) as channel:
        reflected = Reflected(channel)
        assert set(reflected.database.get_services()) == {
            "mindspore.serving.proto.MSService",
            "grpc.health.v1.Health",
            "grpc.reflection.v1.ServerReflection",
            "grpc.reflection.v1alpha.ServerReflection",
        }
        service = reflected.pool.FindServiceByName("mindspore.serving.proto.MSService")
        method = service.methods_by_name["Predict"]
        shipped = pb.DESCRIPTOR.services_by_name["MSService"].methods_by_name["Predict"]
        assert method.input_type.full_name == shipped.input_type.full_name
        request_class = reflected.message(method.input_type.full_name)
        reply_class = reflected.message(method.output_type.full_name)
        request = request_class(servable_spec={"name": "signs", "method_name": "negate"})
        tensor = request.instances.add().items["x"]
        tensor.dtype, tensor.data = pb.MS_FLOAT32, np.float32([1, 2]).tobytes()
        tensor.shape.dims.append(2)
        call = channel.unary_unary(
            f"/{service.full_name}/{method.name}",
            request_serializer=request_class.SerializeToString,
            response_deserializer=reply_class.FromString,
        )
        reply = call(request, timeout=60)
        assert np.frombuffer(reply.instances[0].items["y"].data, np.float32).tolist() == [-1, -2]
        with pytest.raises(KeyError):
            reflected.pool.FindServiceByName("mindspore.serving.proto.Other")


def test_WatchFollowsTheServerFromStartToStop(tmp_path: Path) -> None:
    with make_server(tmp_path, grpc_first=True) as server, grpc.insecure_channel(server.grpc_address) as channel:
        reflected = Reflected(channel)
        request_class = reflected.message("grpc.health.v1.HealthCheckRequest")
        response_class = reflected.message("grpc.health.v1.HealthCheckResponse")
        coding = {
            "request_serializer": request_class.SerializeToString,
            "response_deserializer": response_class.FromString,
        }
        names = response_class.DESCRIPTOR.enum_types_by_name["ServingStatus"].values_by_number
        events: queue.Queue[tuple[str, str]] = queue.Queue()

        def watch(name: str) -> None:
            calls = channel.unary_stream("/grpc.health.v1.Health/Watch", **coding)(request_class(service=name))
            try:
                for response in calls:
                    events.put((name, names[response.status].name))
            except grpc.RpcError as error:
                events.put((name, error.code().name))

        watchers = [threading.Thread(target=watch, args=(name,)) for name in ("", "signs", "signs/7")]
        for watcher in watchers:
            watcher.start()
        seen: dict[str, list[str]] = {"": [], "signs": [], "signs/7": []}

        def follow(**awaited: str) -> None:
            while any(not seen[name] or seen[name][-1] != last for name, last in awaited.items()):
                name, event = events.get(timeout=60)
                seen[name].append(event)

        follow(**{"": "SERVING", "signs": "SERVING", "signs/7": "SERVICE_UNKNOWN"})
        check = channel.unary_unary("/grpc.health.v1.Health/Check", **coding)
        assert check(request_class(service="signs"), timeout=60).status == 1
        server.send_signal(signal.SIGTERM)
        follow(**{"": "UNAVAILABLE", "signs": "UNAVAILABLE", "signs/7": "UNAVAILABLE"})
        for watcher in watchers:
            watcher.join()
        assert seen[""][-3:] == ["SERVING", "NOT_SERVING", "UNAVAILABLE"]
        assert seen["signs"][-3:] == ["SERVING", "NOT_SERVING", "UNAVAILABLE"]
        assert server.wait_exit(60) == 0
