"""Sends held-out images over gRPC (sync and async) and REST, and checks what share came back right.

Then the same images to `top5`, with one among them that is no image.
"""

import base64
import json
import os
import urllib.request

from digits_data import load_split, to_png
from mindspore_serving.client import Client

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")


def call_rest(pngs):
    body = {"instances": [{"image": {"b64": base64.b64encode(png).decode()}} for png in pngs]}
    request = urllib.request.Request(f"http://{REST_ADDRESS}/model/digits:classify", json.dumps(body).encode())
    with urllib.request.urlopen(request) as response:
        return [instance["digit"] for instance in json.load(response)["instances"]]


def main():
    _, images, _, labels = load_split()
    pngs = [to_png(image) for image in images]
    client = Client(GRPC_ADDRESS, "digits", "classify")

    one = client.infer({"image": pngs[0]})[0]["digit"]
    print(f"gRPC, one image: a {labels[0]}, read as {one}")

    # One request an image, all of them in flight at once: the server gathers them into batches.
    calls = [client.infer_async({"image": png}) for png in pngs]
    by_async = [int(call.result()[0]["digit"]) for call in calls]
    by_grpc = [int(answer["digit"]) for answer in client.infer([{"image": png} for png in pngs])]
    by_rest = call_rest(pngs)
    assert by_async == by_grpc == by_rest, "the three ways disagree"

    right = sum(int(read == label) for read, label in zip(by_grpc, labels, strict=True))
    print(f"gRPC and REST agree on {len(pngs)} held-out images, {right / len(pngs):.2%} right")
    assert right / len(pngs) > 0.95
    show_top5(pngs, labels, by_grpc)


def show_top5(pngs, labels, best):
    client = Client(GRPC_ADDRESS, "digits", "top5")
    bad = 3
    answers = client.infer([{"image": b"no image" if i == bad else png} for i, png in enumerate(pngs)])
    print(f"gRPC top5, an image that is none: {answers[bad]['error'].split(': ')[0]}")
    good = [i for i in range(len(pngs)) if i != bad]
    for i in good:  # the others are answered, each in its place
        digits, probabilities = answers[i]["digits"], answers[i]["probabilities"]
        assert digits[0] == best[i] and list(probabilities) == sorted(probabilities, reverse=True)
    ranked = zip(answers[0]["digits"], answers[0]["probabilities"], strict=True)
    print(f"gRPC top5, a {labels[0]}: " + ", ".join(f"{digit} {share:.1%}" for digit, share in ranked))
    found = sum(int(labels[i] in answers[i]["digits"]) for i in good)
    print(f"gRPC top5: {len(good)} of {len(pngs)} images ranked, {found / len(good):.2%} have their digit among five")
    assert found / len(good) > 0.99


if __name__ == "__main__":
    main()
