"""The C++ codec against protobuf's Python runtime, on random messages in deliberately odd encodings.

tests/support/codec_driver.cc runs the codec; what it should say is worked out here from what protobuf reads.
"""

from __future__ import annotations

import math
import os
import pathlib
import random
import struct
import subprocess

import pytest
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import DecodeError

from mindspore_serving.proto import ms_service_pb2 as pb
from odd_encoder import BYTES_TYPE, INPUT_NAMES, ITEM_SIZES, STRING, OddEncoder

ROOT = pathlib.Path(__file__).resolve().parents[2]
ROUNDS = 4000
MAX_RANK = 8


def entries_as_messages():
    """PredictRequest and PredictReply classes in which the map is what it is on the wire: repeated entries.

    protobuf's Python runtime sets a whole map entry aside when it has an unknown field, unlike its other languages and
    unlike what it does in every other message; so the map's rule, the last entry of a key wins, is applied here.
    """
    file = descriptor_pb2.FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    for message in file.message_type:
        for nested in message.nested_type:
            nested.options.ClearField("map_entry")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    classes = message_factory.GetMessageClassesForFiles([file.name], pool)
    return classes[f"{file.package}.PredictRequest"], classes[f"{file.package}.PredictReply"]


WireRequest, WireReply = entries_as_messages()


def items_of(instance) -> dict[str, object]:
    return {entry.key: entry.value for entry in instance.items}


class Driver:
    def __init__(self, program: pathlib.Path) -> None:
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def ask(self, kind: bytes, message: bytes) -> bytes:
        self.process.stdin.write(struct.pack("<I", 1 + len(message)) + kind + message)
        self.process.stdin.flush()
        size = self.process.stdout.read(4)
        assert len(size) == 4, f"the driver died of {message!r}"
        return self.process.stdout.read(struct.unpack("<I", size)[0])

    def close(self) -> None:
        self.process.stdin.close()
        try:
            assert self.process.wait(timeout=10) == 0
        finally:
            self.process.kill()
            self.process.stdout.close()


@pytest.fixture(scope="module")
def driver():
    build = pathlib.Path(os.environ.get("MSSERVING_BUILD_DIR", ROOT / "build" / "release"))
    program = build / "tests" / "support" / "codec_driver"
    assert program.exists(), f"{program} is missing: build target codec_driver, or set MSSERVING_BUILD_DIR"
    driver = Driver(program)
    yield driver
    driver.close()


def keeps_rules(tensor) -> bool:
    """BEHAVIOUR's rules of encoding, said once more."""
    dims = list(tensor.shape.dims)
    if tensor.dtype in (STRING, BYTES_TYPE):
        if len(tensor.bytes_val) != 1 or dims not in ([], [1]):
            return False
        try:
            return tensor.dtype == BYTES_TYPE or tensor.bytes_val[0].decode() is not None
        except UnicodeDecodeError:
            return False
    if tensor.dtype not in ITEM_SIZES or len(dims) > MAX_RANK:
        return False
    if any(dim < 0 for dim in dims) or 0 in dims[:-1]:
        return False
    return math.prod(dims) * ITEM_SIZES[tensor.dtype] == len(tensor.data)


def expected_request(message: bytes):
    """What the codec should make of a request, as a PredictRequest with the known inputs only; None: refuse."""
    try:
        request = WireRequest.FromString(message)
    except DecodeError:
        return None
    if not request.instances:
        return None
    expected = pb.PredictRequest(servable_spec=pb.ServableSpec())
    expected.servable_spec.name = request.servable_spec.name
    expected.servable_spec.method_name = request.servable_spec.method_name
    expected.servable_spec.version_number = request.servable_spec.version_number
    for instance in request.instances:
        items = items_of(instance)
        known = expected.instances.add()
        for name in INPUT_NAMES:
            if name not in items or not keeps_rules(items[name]):
                return None
            known.items[name].CopyFrom(canonical(items[name]))
    return expected


def canonical(tensor):
    """The fields that a tensor of this type is made of, without unknown ones."""
    out = pb.Tensor(dtype=tensor.dtype)
    if tensor.shape.dims:
        out.shape.dims.extend(tensor.shape.dims)
    if tensor.dtype in (STRING, BYTES_TYPE):
        out.bytes_val.extend(tensor.bytes_val)
    else:
        out.data = tensor.data
    return out


def check_request(driver: Driver, message: bytes) -> bool:
    """Compares both readings of `message`; whether it was a good request."""
    answer = driver.ask(b"Q", message)
    expected = expected_request(message)
    if expected is None:
        assert answer.startswith(b"E"), f"should be refused: {message!r}"
        return False
    assert answer.startswith(b"O"), f"{answer!r} about {message!r}"
    version, size, rest = answer[1:].split(b"\n", 2)
    request = pb.PredictRequest.FromString(rest[: int(size)])
    reply = pb.PredictReply.FromString(rest[int(size) :])
    assert int(version) == expected.servable_spec.version_number
    assert request == expected
    assert list(reply.instances) == list(expected.instances)
    spec = WireRequest.FromString(message).servable_spec
    assert reply.servable_spec.SerializeToString() == spec.SerializeToString()
    assert not reply.error_msg
    return True


def test_requests_in_odd_encodings(driver):
    good = sum(check_request(driver, OddEncoder(random.Random(seed)).request()) for seed in range(ROUNDS))
    assert ROUNDS * 0.2 < good < ROUNDS * 0.9, f"{good} good ones: the generator is off"


def test_requests_as_protobuf_writes_them(driver):
    for seed in range(ROUNDS // 2):
        request = expected_request(OddEncoder(random.Random(seed)).request())
        if request is not None:
            assert check_request(driver, request.SerializeToString())


def test_requests_with_damage(driver):
    """Also what protobuf makes of damage: the codec refuses exactly what protobuf refuses, and bad tensors."""
    refused_by_protobuf = refused_by_rule = 0
    for seed in range(ROUNDS * 2):
        encoder = OddEncoder(random.Random(seed))
        message = encoder.damaged(encoder.request())
        answer = driver.ask(b"Q", message)
        if b"shared memory" in answer:
            refused_by_rule += 1  # fields that protobuf does not know any more
            continue
        if not check_request(driver, message):
            try:
                WireRequest.FromString(message)
                refused_by_rule += 1
            except DecodeError:
                assert b"not a well-formed" in answer, f"{answer!r} about {message!r}"
                refused_by_protobuf += 1
            else:
                assert b"not a well-formed" not in answer, f"{answer!r} about {message!r}"
    assert refused_by_protobuf > ROUNDS / 10
    assert refused_by_rule > ROUNDS / 10


def test_bytes_that_are_no_message(driver):
    rng = random.Random(7)
    for _ in range(ROUNDS):
        check_request(driver, rng.randbytes(rng.randint(0, 30)))


def dump(reply) -> bytes:
    """A reply as the driver writes it down, for replies whose tensors all keep the rules; names in sorted order."""
    lines = []
    for instance in reply.instances:
        lines.append(["instance"])
        for name, tensor in sorted(items_of(instance).items(), key=lambda item: item[0].encode()):
            content = tensor.bytes_val[0] if tensor.dtype in (STRING, BYTES_TYPE) else tensor.data
            dims = ",".join(map(str, tensor.shape.dims))
            lines.append(["tensor", name.encode().hex(), str(tensor.dtype), dims, content.hex()])
    lines += [["error", str(error.error_code), error.error_msg.hex()] for error in reply.error_msg]
    return b"".join("\t".join(line).encode() + b"\n" for line in lines)


def sorted_tensors(answer: bytes) -> bytes:
    """The driver's lines with the tensors of each instance in sorted order."""
    out: list[bytes] = []
    run: list[bytes] = []
    for line in [*answer.splitlines(keepends=True), b""]:
        if line.startswith(b"tensor\t"):
            run.append(line)
            continue
        out += sorted(run, key=lambda tensor: tensor.split(b"\t")[1])
        run = []
        out.append(line)
    return b"".join(out)


def check_reply(driver: Driver, message: bytes) -> bool:
    answer = driver.ask(b"R", message)
    try:
        reply = WireReply.FromString(message)
    except DecodeError:
        assert answer.startswith(b"E"), f"should be refused: {message!r}"
        return False
    if answer.startswith(b"E"):
        # The client's parser looks at each entry by itself, at those that later ones replace as well.
        assert b"Output" in answer or not all(keeps_rules(t) for i in reply.instances for t in items_of(i).values())
        return False
    assert sorted_tensors(answer[1:]) == dump(reply)
    return True


def test_replies_in_odd_encodings(driver):
    good = sum(check_reply(driver, OddEncoder(random.Random(seed)).reply()) for seed in range(ROUNDS // 2))
    assert good > ROUNDS / 4, f"{good} good ones: the generator is off"


def test_replies_with_damage(driver):
    for seed in range(ROUNDS // 2):
        encoder = OddEncoder(random.Random(seed))
        check_reply(driver, encoder.damaged(encoder.reply()))
