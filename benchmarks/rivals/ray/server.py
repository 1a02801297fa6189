"""Ray Serve on one node: HAProxy for HTTP and gRPC and a replica of a deployment; for the pipeline one deployment a
stage."""

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
OPTIONS = {"num_replicas": 1, "max_ongoing_requests": 512, "ray_actor_options": {"num_cpus": 0}}


class _Batched:
    """Runs some stages, requests together where the work has batches."""

    def __init__(self, stages):
        made = [functions.stage(name) for name in stages]

        def run(arrays):
            for function in made:
                arrays = function(*arrays)
            return arrays

        self._run = run

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.001)
    async def together(self, requests):
        return functions.run_together(self._run, requests)

    async def answer(self, arrays):
        return await self.together(arrays) if WORK.max_batch > 1 else self._run(arrays)


@serve.deployment(**OPTIONS)
class Stage(_Batched):
    async def __call__(self, arrays):
        return await self.answer(arrays)


@serve.deployment(**OPTIONS)
class Ingress(_Batched):
    def __init__(self, stages, later=()):
        super().__init__(stages)
        self._later = later

    async def _through(self, arrays):
        arrays = await self.answer(arrays)
        for stage in self._later:
            arrays = await stage.remote(arrays)
        return arrays

    async def __call__(self, request: Request) -> Response:
        body = await request.body()
        if request.url.path.endswith("/raw"):
            arrays = await self._through(bodies.from_raw(WORK.inputs, body))
            return Response(bodies.to_raw(arrays), media_type="application/octet-stream")
        arrays = await self._through(bodies.from_json(WORK.inputs, body))
        return Response(json.dumps(bodies.to_lists(WORK.outputs, arrays)), media_type="application/json")

    async def Infer(self, request):
        return BytesValue(value=bodies.to_raw(await self._through(bodies.from_raw(WORK.inputs, request.value))))


if __name__ == "__main__":
    ray.init(num_cpus=1, include_dashboard=False, log_to_driver=False, object_store_memory=512 << 20)
    serve.start(
        http_options={"host": "127.0.0.1", "port": int(os.environ["RIVALS_HTTP_PORT"])},
        grpc_options={
            "port": int(os.environ["RIVALS_GRPC_PORT"]), "grpc_servicer_functions": ["ray_service.add_to_server"],
        },
    )  # fmt: skip
    if WORK.name == "pipeline":
        stages = [Stage.options(name=name).bind([name]) for name in WORK.stages[1:]]
        app = Ingress.bind(WORK.stages[:1], stages)
    else:
        app = Ingress.bind(WORK.stages)
    serve.run(app, route_prefix="/", blocking=False)
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()
    ray.shutdown()
