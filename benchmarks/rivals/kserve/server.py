"""KServe's Python server with a custom model: the open inference protocol over gRPC and REST."""

import os

import grpc.aio
import kserve
import uvicorn
from kserve import InferOutput, InferRequest, InferResponse
from rival_work import functions
from rival_work.works import chosen

WORK = chosen()


class Work(kserve.Model):
    def __init__(self):
        super().__init__(WORK.name)
        self._function = functions.load(WORK)
        self.ready = True

    async def predict(self, payload: InferRequest, headers=None) -> InferResponse:
        found = {one.name: one.as_numpy() for one in payload.inputs}
        results = self._function([found[tensor.name] for tensor in WORK.inputs])
        outputs = []
        for tensor, array in zip(WORK.outputs, results, strict=True):
            datatype = {"float32": "FP32", "int64": "INT64"}[array.dtype.name]
            output = InferOutput(tensor.name, list(array.shape), datatype)
            output.set_data_from_numpy(array, binary_data=payload.from_grpc)
            outputs.append(output)
        return InferResponse(payload.id or "1", WORK.name, outputs, from_grpc=payload.from_grpc)


def stay_on_loopback():
    """It binds to all addresses and has no option for another one."""
    plain_config, plain_server = uvicorn.Config.__init__, grpc.aio.server

    def config(self, *arguments, **options):
        plain_config(self, *arguments, **{**options, "host": "127.0.0.1"})

    def server(*arguments, **options):
        made = plain_server(*arguments, **options)
        add = made.add_insecure_port
        made.add_insecure_port = lambda address: add("127.0.0.1:" + address.rpartition(":")[2])
        return made

    uvicorn.Config.__init__ = config
    grpc.aio.server = server


if __name__ == "__main__":
    stay_on_loopback()
    kserve.ModelServer(
        http_port=int(os.environ["RIVALS_HTTP_PORT"]),
        grpc_port=int(os.environ["RIVALS_GRPC_PORT"]),
        workers=1,
        enable_latency_logging=False,
    ).start([Work()])
