import json
import subprocess
from dataclasses import dataclass

from rivals import wire
from rivals.protocols import Arrays, RawHttp, Request, Work, without_prefix
from rivals.rival import FOLDER, Rival, Start
from servers import free_port

from rival_work import bodies  # isort: skip  (protocols has made it importable)
from rival_work.works import WORKS  # isort: skip


@dataclass(frozen=True)
class Grpc:
    """Predictions of its own service: a map with one entry, the tensors' bytes."""

    grpc = True
    title: str = "gRPC, raw bytes"
    path: str = "/org.pytorch.serve.grpc.inference.InferenceAPIsService/Predictions"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        data = wire.text(1, "data") + wire.text(2, bodies.to_raw(arrays))
        message = wire.text(1, work.name) + wire.text(3, data)
        return Request(self.path, b"\0" + len(message).to_bytes(4, "big") + message)

    def decode(self, work: Work, body: bytes) -> Arrays:
        return bodies.from_raw(work.outputs, bytes(dict(wire.fields(without_prefix(body)))[1]))


def _command(start: Start) -> list[str]:
    programs, store = start.python.parent, start.scratch / "store"
    store.mkdir(exist_ok=True)
    archiver = [programs / "torch-model-archiver", "--model-name", start.work, "--version", "1.0", "--force"]
    archiver += ["--handler", FOLDER / "torchserve" / "handler.py", "--archive-format", "no-archive"]
    subprocess.run([*map(str, archiver), "--export-path", str(store)], check=True, capture_output=True, timeout=60)
    model = {
        "defaultVersion": True, "marName": start.work, "minWorkers": 1, "maxWorkers": 1, "responseTimeout": 60,
        "batchSize": WORKS[start.work].max_batch, "maxBatchDelay": 1,
    }  # fmt: skip
    settings = {
        "inference_address": f"http://127.0.0.1:{start.http_port}",
        "management_address": f"http://127.0.0.1:{free_port()}",
        "metrics_address": f"http://127.0.0.1:{free_port()}",
        "grpc_inference_address": "127.0.0.1", "grpc_inference_port": start.grpc_port,
        "grpc_management_address": "127.0.0.1", "grpc_management_port": free_port(),
        "load_models": start.work, "models": json.dumps({start.work: {"1.0": model}}), "job_queue_size": 1000,
        "async_logging": "true", "enable_metrics_api": "false", "disable_system_metrics": "true",
        "max_request_size": 64 << 20, "max_response_size": 64 << 20, "default_workers_per_model": 1,
    }  # fmt: skip
    config = start.scratch / "config.properties"
    config.write_text("".join(f"{name}={value}\n" for name, value in settings.items()))
    logging = FOLDER / "torchserve" / "log4j2.xml"
    options = ["--start", "--foreground", "--ncs", "--disable-token-auth", "--log-config", str(logging)]
    return [str(programs / "torchserve"), *options, "--ts-config", str(config), "--model-store", str(store)]


def _env(start: Start) -> dict[str, str]:
    logs = str(start.scratch / "logs")
    # Its process number lies in the folder for temporary files, and names the one server that may run.
    return {"LOG_LOCATION": logs, "METRICS_LOCATION": logs, "TMPDIR": str(start.scratch)}


RIVALS = [
    Rival(
        "torchserve",
        "TorchServe",
        "torchserve",
        "torchserve",
        {"raw": RawHttp("/predictions/{work}"), "grpc": Grpc()},
        (
            "one worker process (the server has one core) with a custom handler, `async_logging=true` as its guide "
            "advises, a queue of 1,000, no access log, no metrics; needs a Java runtime",
            "dynamic batching up to the model's batch with `maxBatchDelay` 1 ms, the shortest that it takes",
            "the tensors' bytes as one input, over HTTP and over its own gRPC service",
            "pipeline: the three stages in one handler",
            "four seconds of load before the first that counts, as Java compiles what runs often",
        ),
        _command,
        _env,
        warm_up_seconds=4,
        start_seconds=7,
    )
]
