"""A run that fails inside MindSpore spoils its graph for good: the worker answers, leaves and is replaced."""

import time

import numpy as np

from mindspore_serving.client import Client
from servables import make_script, make_servable
from servers import ServerProcess

CONFIG = """
from mindspore_serving.server import register

model = register.declare_model("shapes.mindir", "MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(model, x1, x2, outputs_count=1)
"""


def instance(value, *shapes):
    return {f"x{i + 1}": np.full(shape, value, np.float32) for i, shape in enumerate(shapes)}


def test_AFailedRunOfADynamicModel_TakesTheModelDownForAMomentOnly(tmp_path, models):
    make_servable(tmp_path, "shapes", CONFIG, {1: models / "shapes.mindir"})
    with ServerProcess(make_script(tmp_path, ['"shapes"'])) as server:
        with Client(server.grpc_address, "shapes", "add") as client:
            (before,) = client.infer(instance(1, (2, 3), (2, 3)))
            np.testing.assert_array_equal(before["y"], np.full((2, 3), 2, np.float32))
            (refused,) = client.infer([instance(1, (2, 3), (4, 5))])
            assert "error" in refused, refused
            until = time.monotonic() + 120
            while "error" in (after := client.infer([instance(2, (3, 2), (3, 2))])):
                assert time.monotonic() < until, after  # the worker that takes its place is not ready yet
                time.sleep(0.05)
            np.testing.assert_array_equal(after[0]["y"], np.full((3, 2), 4, np.float32))
        assert "MindSpore refuses every later run of its graph" in server.worker_logs() + server.log
