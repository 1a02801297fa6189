"""What encoding a request and decoding its reply costs the Python client, beside protobuf's objects.

usage: client_codec.py [--seconds 0.5]

The reply has what the request had. Both ways take turns; the best of five turns counts, as CPU time.
"""

import argparse
import time

import numpy as np

from mindspore_serving.client import _codec
from mindspore_serving.client._tensors import fill_tensor, value_of
from mindspore_serving.proto import ms_service_pb2 as pb

CASES = {
    "1 instance, two 2x2": [{"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}],
    "32 instances, two 2x2": [{"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}] * 32,
    "32 instances, 784 floats": [{"image": np.ones(784, np.float32)}] * 32,
    "1 instance, a Python float": [{"x": 1.0}],
    "1 instance, 4 kB of bytes": [{"image": bytes(4096)}],
    "1 instance, 4 MiB": [{"x": np.ones((1024, 1024), np.float32)}],
}


def encode_by_protobuf(instances):
    request = pb.PredictRequest()
    request.servable_spec.name = "servable"
    request.servable_spec.method_name = "method"
    for instance in instances:
        items = request.instances.add().items
        for name, value in instance.items():
            fill_tensor(name, value, items[name])
    return request.SerializeToString()


def decode_by_protobuf(message):
    reply = pb.PredictReply.FromString(message)
    return [{name: value_of(name, tensor) for name, tensor in instance.items.items()} for instance in reply.instances]


def cost_us(function, argument, seconds):
    function(argument)
    rounds, begin = 0, time.process_time()
    while time.process_time() - begin < seconds / 10:
        function(argument)
        rounds += 1
    begin = time.process_time()
    for _ in range(rounds):
        function(argument)
    return (time.process_time() - begin) / rounds * 1e6


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=0.5, help="CPU time for each figure")
    seconds = parser.parse_args().seconds
    print(f"{'':28}{'encode':>12}{'decode':>12}{'protobuf':>14}{'protobuf':>12}{'both':>10}")
    for name, instances in CASES.items():
        request = pb.PredictRequest.FromString(encode_by_protobuf(instances))
        reply = pb.PredictReply(servable_spec=request.servable_spec, instances=request.instances).SerializeToString()
        ways = [
            (lambda values: _codec.encode(values, "servable", "method", 0), instances),
            (_codec.decode, reply),
            (encode_by_protobuf, instances),
            (decode_by_protobuf, reply),
        ]
        best = [min(cost_us(way, argument, seconds) for _ in range(5)) for way, argument in ways]
        ours, theirs = best[0] + best[1], best[2] + best[3]
        print(f"{name:28}{best[0]:9.2f} µs{best[1]:9.2f} µs{best[2]:11.2f} µs{best[3]:9.2f} µs{theirs / ours:9.1f} ×")


if __name__ == "__main__":
    main()
