"""LitServe: an inference worker process behind FastAPI and uvicorn. The route of RIVALS_PROTOCOL: raw or JSON."""

import os
from typing import Annotated

import litserve
from fastapi import Body, Request, Response
from rival_work import bodies, functions
from rival_work.works import chosen

WORK = chosen()
Raw = Annotated[bytes, Body(media_type="application/octet-stream")]


class _Work(litserve.LitAPI):
    def setup(self, device):
        self._function = functions.load(WORK)

    def batch(self, inputs):
        return inputs

    def unbatch(self, output):
        return output

    def predict(self, inputs):
        if self.max_batch_size == 1:
            return self._function(inputs)
        return functions.run_together(self._function, inputs)


class RawWork(_Work):
    def decode_request(self, request: Raw):
        return bodies.from_raw(WORK.inputs, request)

    def encode_response(self, output) -> Response:
        return Response(bodies.to_raw(output), media_type="application/octet-stream")


class JsonWork(_Work):
    def decode_request(self, request: Request):
        return bodies.from_lists(WORK.inputs, request)

    def encode_response(self, output):
        return bodies.to_lists(WORK.outputs, output)


if __name__ == "__main__":
    options = {"max_batch_size": WORK.max_batch, "batch_timeout": 0.001 if WORK.max_batch > 1 else 0.0}
    protocol = os.environ["RIVALS_PROTOCOL"]
    route = {"raw": RawWork, "json": JsonWork}[protocol](api_path=f"/{protocol}", **options)
    server = litserve.LitServer(route, accelerator="cpu", workers_per_device=1, fast_queue=True)
    server.run(
        host="127.0.0.1", port=int(os.environ["RIVALS_HTTP_PORT"]), generate_client_file=False, log_level="warning"
    )
