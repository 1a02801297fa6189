"""Ray Serve on one node: HAProxy for HTTP and gRPC in front of one replica."""

import json
import os
import signal
import threading

import ray
from google.protobuf.wrappers_pb2 import BytesValue
from ray import serve
from rival_work import bodies, functions
from rival_work.works import chosen
from starlette.requests import Request
from starlette.responses import Response

WORK = chosen()


@serve.deployment(num_replicas=1, max_ongoing_requests=512, ray_actor_options={"num_cpus": 0})
class Work:
    def __init__(self):
        self._function = functions.load(WORK)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def _together(self, requests):
        return functions.run_together(self._function, requests)

    async def _answer(self, arrays):
        return await self._together(arrays) if WORK.max_batch > 1 else self._function(arrays)

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.url.path.endswith("/raw"):
            arrays = await self._answer(bodies.from_raw(WORK.inputs, body))
            return Response(bodies.to_raw(arrays), media_type="application/octet-stream")
        arrays = await self._answer(bodies.from_json(WORK.inputs, body))
        return Response(json.dumps(bodies.to_lists(WORK.outputs, arrays)), media_type="application/json")

    async def Infer(self, request):
        return BytesValue(value=bodies.to_raw(await self._answer(bodies.from_raw(WORK.inputs, request.value))))


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=512 << 20)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["RIVALS_HTTP_PORT"])},
        grpc_options={
            "port": int(os.environ["RIVALS_GRPC_PORT"]), "grpc_servicer_functions": ["ray_service.add_to_server"],
        },
    )  # fmt: skip
    serve.run(Work.bind(), route_prefix="/", blocking=False)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    ray.shutdown()
