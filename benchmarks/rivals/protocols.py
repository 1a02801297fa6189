"""How the arrays of a request become an HTTP body, and back: one object a protocol."""

import json
import struct
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from harness import messages
from rivals import wire

sys.path.insert(0, str(Path(__file__).parent / "shared"))

from rival_work import bodies
from rival_work.works import Work

Arrays = list[np.ndarray]
_LARGE_BYTES = 1 << 20


@dataclass(frozen=True)
class Request:
    path: str
    body: bytes  # as HTTP carries it, for gRPC with its prefix
    headers: dict[str, str] = field(default_factory=dict)


class ServingProtocol(Protocol):
    grpc: bool
    title: str

    def encode(self, work: Work, arrays: Arrays) -> Request: ...

    # From the HTTP body; gRPC's prefix is still on it.
    def decode(self, work: Work, body: bytes) -> Arrays: ...


def without_prefix(body: bytes) -> bytes:
    """The one message of a gRPC body."""
    compressed, size = struct.unpack(">BI", body[:5])
    if compressed or size != len(body) - 5:
        raise ValueError(f"not one plain gRPC message: {body[:5].hex()} and {len(body) - 5} bytes")
    return body[5:]


@dataclass(frozen=True)
class RawHttp:
    """The tensors' bytes, one after the other: the least that HTTP can carry."""

    path: str  # {work} stands for the work's name
    grpc = False
    title: str = "HTTP, raw bytes"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        path = self.path.format(work=work.name)
        return Request(path, bodies.to_raw(arrays), {"Content-Type": "application/octet-stream"})

    def decode(self, work: Work, body: bytes) -> Arrays:
        return bodies.from_raw(work.outputs, body)


@dataclass(frozen=True)
class JsonHttp:
    """{"x1": [...], "x2": [...]}: nested lists with a row for each instance; the answer likewise."""

    path: str
    grpc = False
    title: str = "HTTP, JSON"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        return Request(self.path, bodies.to_json(work.inputs, arrays), {"Content-Type": "application/json"})

    def decode(self, work: Work, body: bytes) -> Arrays:
        return bodies.from_json(work.outputs, body)


_V2_TYPES = {"FP32": np.float32, "UINT8": np.uint8, "INT64": np.int64}


def _v2_type(dtype: object) -> str:
    return next(name for name, one in _V2_TYPES.items() if np.dtype(one) == dtype)


@dataclass(frozen=True)
class V2Grpc:
    """The open inference protocol over gRPC, tensors as raw bytes."""

    grpc = True
    title: str = "gRPC, V2 raw"
    path: str = "/inference.GRPCInferenceService/ModelInfer"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        message = wire.text(1, work.name)
        for tensor, array in zip(work.inputs, arrays, strict=True):
            one = wire.text(1, tensor.name) + wire.text(2, _v2_type(array.dtype)) + wire.packed(3, array.shape)
            message += wire.text(5, one)
        message += b"".join(wire.text(7, array.tobytes()) for array in arrays)
        return Request(self.path, messages.grpc_body(message))

    def decode(self, work: Work, body: bytes) -> Arrays:
        outputs: list[tuple[str, str, list[int]]] = []
        raw: list[memoryview] = []
        for number, value in wire.fields(without_prefix(body)):
            if number == 5:
                parts = dict(wire.fields(value))
                outputs.append((str(parts[1], "utf-8"), str(parts[2], "utf-8"), wire.unpacked(parts[3])))
            elif number == 6:
                raw.append(value)
        if len(raw) != len(outputs):
            raise ValueError(f"{len(outputs)} outputs with {len(raw)} raw contents")
        found = {
            name: np.frombuffer(data, _V2_TYPES[kind]).reshape(shape)
            for (name, kind, shape), data in zip(outputs, raw, strict=True)
        }
        return [found[tensor.name] for tensor in work.outputs]


@dataclass(frozen=True)
class V2Json:
    """The open inference protocol over REST, tensors as flat lists."""

    grpc = False
    title: str = "REST, V2 JSON"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        inputs = [
            {
                "name": tensor.name,
                "datatype": _v2_type(array.dtype),
                "shape": array.shape,
                "data": array.ravel().tolist(),
            }
            for tensor, array in zip(work.inputs, arrays, strict=True)
        ]
        body = json.dumps({"inputs": inputs}).encode()
        return Request(f"/v2/models/{work.name}/infer", body, {"Content-Type": "application/json"})

    def decode(self, work: Work, body: bytes) -> Arrays:
        found = {one["name"]: one for one in json.loads(body)["outputs"]}
        return [
            np.asarray(found[tensor.name]["data"], tensor.dtype).reshape(found[tensor.name]["shape"])
            for tensor in work.outputs
        ]


@dataclass(frozen=True)
class V2Binary:
    """The open inference protocol over HTTP with the binary extension: a JSON head, then the tensors' bytes."""

    grpc = False
    title: str = "HTTP, V2 binary"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        inputs = [
            {
                "name": tensor.name, "datatype": _v2_type(array.dtype), "shape": array.shape,
                "parameters": {"binary_data_size": array.nbytes},
            }
            for tensor, array in zip(work.inputs, arrays, strict=True)
        ]  # fmt: skip
        head = json.dumps({"inputs": inputs, "parameters": {"binary_data_output": True}}).encode()
        headers = {"Content-Type": "application/octet-stream", "Inference-Header-Content-Length": str(len(head))}
        return Request(f"/v2/models/{work.name}/infer", head + bodies.to_raw(arrays), headers)

    def decode(self, work: Work, body: bytes) -> Arrays:
        # The head's length is in a header of the answer, which the load generator does not keep; JSON ends itself.
        head, at = json.JSONDecoder().raw_decode(body.decode("latin-1"))
        found = {}
        for one in head["outputs"]:
            size = one["parameters"]["binary_data_size"]
            found[one["name"]] = np.frombuffer(body[at : at + size], _V2_TYPES[one["datatype"]]).reshape(one["shape"])
            at += size
        return [found[tensor.name] for tensor in work.outputs]


def _instances(names: Sequence[str], arrays: Arrays) -> list[messages.Instance]:
    return [dict(zip(names, row, strict=True)) for row in zip(*arrays, strict=True)]


@dataclass(frozen=True)
class MsGrpc:
    """MSService.Predict."""

    method: str = "predict"
    grpc = True
    title: str = "gRPC"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        instances = _instances([tensor.name for tensor in work.inputs], arrays)
        message = messages.predict_message(work.name, self.method, instances)
        return Request(messages.GRPC_PATH, messages.grpc_body(message))

    def decode(self, work: Work, body: bytes) -> Arrays:
        instances = messages.reply_instances(without_prefix(body))
        return [np.stack([one[tensor.name] for one in instances]) for tensor in work.outputs]


@dataclass(frozen=True)
class MsRest:
    """/model/NAME:METHOD with {"instances": [...]}."""

    method: str = "predict"
    grpc = False
    title: str = "REST"

    def encode(self, work: Work, arrays: Arrays) -> Request:
        body = messages.rest_body(_instances([tensor.name for tensor in work.inputs], arrays))
        return Request(f"/model/{work.name}:{self.method}", body, {"Content-Type": "application/json"})

    def decode(self, work: Work, body: bytes) -> Arrays:
        instances = json.loads(body)["instances"]
        return [np.asarray([one[tensor.name] for one in instances], tensor.dtype) for tensor in work.outputs]


@dataclass(frozen=True)
class Echo:
    """What another protocol would send; the answer must be the same bytes."""

    of: ServingProtocol
    path: str = "/echo/Echo"

    @property
    def grpc(self) -> bool:
        return self.of.grpc

    @property
    def title(self) -> str:
        return self.of.title

    def encode(self, work: Work, arrays: Arrays) -> Request:
        # Large tensors as text would measure the text.
        text = not self.grpc and work.inputs[0].nbytes > _LARGE_BYTES
        request = RawHttp(self.path).encode(work, arrays) if text else self.of.encode(work, arrays)
        return Request(self.path, request.body, request.headers)

    def decode(self, work: Work, body: bytes) -> Arrays:
        return [np.frombuffer(body, np.uint8)]
