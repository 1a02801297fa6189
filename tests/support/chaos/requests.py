"""Requests with the answers that numpy says they must get."""

from dataclasses import dataclass

import numpy as np

from chaos.ledger import RIGHT, WRONG
from mindspore_serving.proto import ms_service_pb2 as pb

Instance = dict[str, np.ndarray]
REFUSED = "negative numbers are not for us"
DTYPES = {np.dtype(np.float32): pb.MS_FLOAT32, np.dtype(np.int32): pb.MS_INT32, np.dtype(np.float64): pb.MS_FLOAT64}
KINDS = {number: dtype for dtype, number in DTYPES.items()}
# The numbers that error_msg carries (csrc/base/error.cc); 2 is for the request's own fault, which ours never is.
CODES = {1: "overloaded", 2: "stage_failed", 3: "internal", 4: "worker_unavailable", 5: "servable_unavailable"}


@dataclass(frozen=True)
class Request:
    servable: str
    method: str
    instances: list[Instance]
    expected: list[Instance | str]  # a text: this instance fails, and the error has this text in it


@dataclass(frozen=True)
class Answer:
    """A reply in the form that both protocols share: values or an error for each instance, or one error for all."""

    kind: str = RIGHT  # of the error for all
    text: str = ""
    instances: tuple[Instance | str, ...] = ()


def make_request(random: np.random.Generator, large: bool = False) -> Request:
    servable = ("plain", "batched", "python")[random.integers(3)]
    count = int(random.choice((1, 1, 2, 3, 5, 17)))
    if servable == "python":
        return _python_request(random, count, large)
    checked = bool(random.integers(2))
    instances, expected = [], []
    bad = int(random.integers(count)) if checked and count > 1 and random.random() < 0.2 else -1
    for number in range(count):
        one = {name: random.integers(0, 2**20, (2, 2)).astype(np.float32) for name in ("x1", "x2")}
        y = one["x1"] + one["x2"]
        expected.append({"y": y, "total": y.sum()} if checked else {"y": y})
        if number == bad:
            one["x1"] = one["x1"] - 2**21
            expected[-1] = REFUSED
        instances.append(one)
    return Request(servable, "add_checked" if checked else "add", instances, expected)


def _python_request(random: np.random.Generator, count: int, large: bool) -> Request:
    shape = (256, 256) if large else tuple(int(n) for n in random.integers(1, 6, int(random.integers(1, 4))))
    instances = [{"x": random.integers(0, 100, shape).astype(np.float32)} for _ in range(count)]
    if random.integers(2):
        return Request("python", "double", instances, [{"y": one["x"] * 2} for one in instances])
    expected: list[Instance | str] = [
        {"y": one["x"] * 2, "total": one["x"].sum(), "doubled_total": (one["x"] * 2).sum()} for one in instances
    ]
    return Request("python", "double_and_total", instances, expected)


def encode(request: Request) -> bytes:
    message = pb.PredictRequest()
    message.servable_spec.name, message.servable_spec.method_name = request.servable, request.method
    for instance in request.instances:
        items = message.instances.add().items
        for name, value in instance.items():
            tensor = items[name]
            if value.dtype.kind == "U":
                tensor.dtype = pb.MS_STRING
                tensor.shape.dims.append(1)
                tensor.bytes_val.append(str(value).encode())
                continue
            tensor.dtype = DTYPES[value.dtype]
            tensor.shape.dims.extend(value.shape)
            tensor.data = value.tobytes()
    return message.SerializeToString()


def decode(raw: bytes) -> Answer:
    reply = pb.PredictReply.FromString(raw)
    errors = reply.error_msg
    if len(errors) == 1 and not reply.instances:
        return Answer(CODES.get(errors[0].error_code, f"code {errors[0].error_code}"), _text(errors[0]))
    instances: list[Instance | str] = []
    for number, one in enumerate(reply.instances):
        if errors and errors[number].error_code:
            instances.append(_text(errors[number]))
        else:
            instances.append({name: _array(tensor) for name, tensor in one.items.items()})
    return Answer(instances=tuple(instances))


def _text(error: "pb.ErrorMsg") -> str:
    return error.error_msg.decode(errors="replace")


def _array(tensor: "pb.Tensor") -> np.ndarray:
    return np.frombuffer(tensor.data, KINDS[tensor.dtype]).reshape(tensor.shape.dims)


def json_body(request: Request) -> dict[str, object]:
    return {"instances": [{name: value.tolist() for name, value in one.items()} for one in request.instances]}


def from_json(status: int, body: dict[str, object]) -> Answer:
    kinds = {429: "overloaded", 503: "worker_unavailable", 404: "servable_unavailable", 500: "stage_failed"}
    if "instances" not in body:
        return Answer(kinds.get(status, f"HTTP {status}"), str(body.get("error_msg", body)))
    instances: list[Instance | str] = []
    for one in body["instances"]:  # type: ignore[attr-defined]
        if "error_msg" in one:
            instances.append(one["error_msg"])
        else:
            instances.append({name: np.asarray(value, np.float32) for name, value in one.items()})
    return Answer(instances=tuple(instances))


def judge(request: Request, answer: Answer) -> tuple[str, str]:
    """The outcome and what there is to say about it."""
    if answer.kind != RIGHT:
        return answer.kind, answer.text
    if len(answer.instances) != len(request.expected):
        return WRONG, f"{len(answer.instances)} instances, not {len(request.expected)}"
    for number, (got, wanted) in enumerate(zip(answer.instances, request.expected, strict=True)):
        if isinstance(got, str):
            if isinstance(wanted, str) and wanted in got:
                continue
            return _kind_of(got), f"instance {number}: {got}"
        if isinstance(wanted, str):
            return WRONG, f"instance {number} should have failed with {wanted!r}"
        if got.keys() != wanted.keys():
            return WRONG, f"instance {number} has {sorted(got)}, not {sorted(wanted)}"
        for name, value in wanted.items():
            if not np.array_equal(got[name], value):
                return WRONG, f"instance {number}, {name}: {got[name].tolist()}, not {np.asarray(value).tolist()}"
    return RIGHT, ""


def _kind_of(text: str) -> str:
    """Of an instance's error, which REST tells without a number."""
    for token, kind in (
        ("ended while it had the request", "worker_unavailable"),
        ("servable is not available", "servable_unavailable"),
        ("enqueued requests count exceeds", "overloaded"),
        ("deadline", "deadline_exceeded"),
        (" Failed", "stage_failed"),
    ):
        if token in text:
            return kind
    return "internal"
