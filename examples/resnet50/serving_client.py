"""Keeps many images in flight against the resnet50 servable and prints how many it answered a second.

usage: serving_client.py [images, default 64] [in flight, default 16]
"""

import collections
import io
import os
import sys
import time

import numpy as np
from PIL import Image

from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")


def make_jpeg(seed):
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).resize((320, 240)).save(buffer, format="JPEG")
    return buffer.getvalue()


def check(answer):
    """Five different classes, their scores in falling order."""
    classes, scores = answer[0]["classes"], answer[0]["scores"]
    assert classes.shape == (5,) and len(set(classes.tolist())) == 5, classes
    assert np.all(np.diff(scores) <= 0), scores
    return classes.tolist()


def main(count=64, in_flight=16):
    jpegs = [make_jpeg(seed) for seed in range(8)]
    client = Client(GRPC_ADDRESS, "resnet50", "classify_top5")
    first = [check(client.infer({"image": jpeg})) for jpeg in jpegs]

    pending = collections.deque()
    start = time.perf_counter()
    for number in range(count + in_flight):
        if len(pending) == in_flight or number >= count:
            if not pending:
                break
            check(pending.popleft().result())
        if number < count:
            pending.append(client.infer_async({"image": jpegs[number % len(jpegs)]}))
    seconds = time.perf_counter() - start
    print(f"first image: classes {first[0]} (the weights are random)")
    print(f"{count} images, {in_flight} in flight: {count / seconds:.1f} images/s")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
