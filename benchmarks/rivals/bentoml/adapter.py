import json

import numpy as np

from rivals.protocols import Arrays, Request, Work
from rivals.rival import FOLDER, Rival, Start


class Json:
    """{"x": rows}: several inputs lie side by side in a row, and so do several outputs."""

    grpc = False
    title = "HTTP, JSON"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        rows = np.stack(arrays, axis=1) if len(arrays) > 1 else arrays[0]
        body = json.dumps({"x": rows.tolist()}).encode()
        return Request("/json", body, {"Content-Type": "application/json"})

    def decode(self, work: Work, body: bytes) -> Arrays:
        rows = np.asarray(json.loads(body))
        if len(work.outputs) == 1:
            return [rows.astype(work.outputs[0].dtype)]
        ends = np.cumsum([int(np.prod(tensor.shape)) for tensor in work.outputs])[:-1]
        return [part.astype(one.dtype) for part, one in zip(np.split(rows, ends, axis=1), work.outputs, strict=True)]


def _command(start: Start) -> list[str]:
    address = ["--host", "127.0.0.1", "--port", str(start.http_port)]
    program = str(start.python.parent / "bentoml")
    return [program, "serve", "server:Work", "--working-dir", str(FOLDER / "bentoml"), *address]


RIVALS = [
    Rival(
        "bentoml",
        "BentoML",
        "bentoml",
        "bentoml",
        {"json": Json()},
        (
            "`bentoml serve` with one worker, no metrics, no access log; its adaptive batching up to the model's batch",
            "JSON: its form for NumPy arrays over HTTP. Pickled bodies are refused by its main server, and services of "
            "release 1.2 and newer have no gRPC.",
            "a batched API takes one parameter, so that several inputs lie side by side in one array",
            "pipeline: the three stages in one API",
        ),
        _command,
        lambda start: {"BENTOML_DO_NOT_TRACK": "True", "BENTOML_HOME": str(start.scratch / "home")},
        skips={"big": "only JSON, which is 20 MB of text for these 4 MiB"},
        start_seconds=4,
    )
]
