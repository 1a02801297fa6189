"""Ten times more requests than can be answered: those taken are answered in time, the others are told at once."""

import time
from pathlib import Path

import grpc
import numpy as np
import pytest

from chaos.requests import Request, decode, encode
from servables import make_script, make_servable

# A device that takes 20 ms an instance and no processor time: its peak is the same on a busy machine.
CONFIG = """
import time
from mindspore_serving.server import register


def work(x):
    time.sleep(0.02)
    return x


@register.register_method(output_names=["y"])
def predict(x):
    return register.add_stage(work, x, outputs_count=1)
"""
PEAK = 50  # requests a second, at most
SECONDS = 4
PATH = "/mindspore.serving.proto.MSService/Predict"
X = np.arange(4, dtype=np.float32)


@pytest.fixture
def slow_server(tmp_path: Path, start_server):
    def start(limit: float = 0):
        make_servable(tmp_path, "slow", CONFIG, {})
        script = make_script(tmp_path, ['"slow"'])
        if limit:
            text = script.read_text()
            head = "from mindspore_serving.server.master import context\n"
            script.write_text(head + text + f"context.set_max_queue_seconds({limit})\n")
        return start_server(script)

    return start


def offer(address: str, rate: float, seconds: float, deadline: float) -> list[tuple[str, float]]:
    """An open loop; the outcome of every request, and after what time it came."""
    message = encode(Request("slow", "predict", [{"x": X}], []))
    outcomes: list[tuple[str, float]] = []
    with grpc.insecure_channel(address) as channel:
        call = channel.unary_unary(PATH)

        def done(future: grpc.Future, sent: float) -> None:
            try:
                answer = decode(future.result())
                good = answer.kind == "right" and np.array_equal(answer.instances[0]["y"], X)
                outcomes.append(("right" if good else answer.kind, time.monotonic() - sent))
            except grpc.RpcError as error:
                outcomes.append((error.code().name, time.monotonic() - sent))

        started, sent = time.monotonic(), 0
        while (now := time.monotonic()) < started + seconds:
            while sent < (now - started) * rate:
                at = time.monotonic()
                call.future(message, timeout=deadline).add_done_callback(lambda future, at=at: done(future, at))
                sent += 1
            time.sleep(0.01)
        waited = time.monotonic()
        while len(outcomes) < sent:
            assert time.monotonic() < waited + 60, f"{sent - len(outcomes)} requests are never answered"
            time.sleep(0.05)
    return outcomes


def of_kind(outcomes: list[tuple[str, float]], *kinds: str) -> list[float]:
    return sorted(took for kind, took in outcomes if kind in kinds)


def test_RequestsThatWouldWaitBeyondTheirDeadline_AreRefusedAtOnce(slow_server):
    server = slow_server()
    offer(server.grpc_address, PEAK / 2, 1, 30)  # warm
    outcomes = offer(server.grpc_address, 10 * PEAK, SECONDS, deadline=1.5)
    right, refused = of_kind(outcomes, "right"), of_kind(outcomes, "overloaded", "RESOURCE_EXHAUSTED")
    late = of_kind(outcomes, "DEADLINE_EXCEEDED")
    # Without looking at deadlines nearly all of the work is on answers that nobody waits for any more.
    assert len(right) > 0.6 * PEAK * SECONDS, (len(right), len(refused), len(late))
    assert len(late) < len(right), (len(right), len(refused), len(late))
    assert len(right) + len(refused) + len(late) == len(outcomes), {kind for kind, _ in outcomes}
    assert refused[len(refused) // 2] < 0.5, "a refusal is quick"


def test_QueueLimitInSeconds_BoundsTheWaitOfThoseTaken(slow_server):
    server = slow_server(limit=0.4)
    offer(server.grpc_address, PEAK / 2, 1, 30)
    outcomes = offer(server.grpc_address, 10 * PEAK, SECONDS, deadline=60)
    right, refused = of_kind(outcomes, "right"), of_kind(outcomes, "overloaded", "RESOURCE_EXHAUSTED")
    assert len(right) > 0.6 * PEAK * SECONDS, (len(right), len(refused))
    assert len(right) + len(refused) == len(outcomes), {kind for kind, _ in outcomes}
    # Ten times the peak for four seconds would be a queue of 36 s.
    assert right[int(len(right) * 0.99)] < 5, right[-5:]
