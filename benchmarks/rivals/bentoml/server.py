"""BentoML: an HTTP server and its dispatcher in front of a worker, as `bentoml serve` starts them.

A batched API has one parameter: several inputs of a work are stacked along the second axis, outputs of one row are put
side by side.
"""

import bentoml
import numpy as np
from rival_work import functions
from rival_work.works import chosen

WORK = chosen()
BATCHING = {"batchable": True, "max_batch_size": WORK.max_batch, "max_latency_ms": 1000} if WORK.max_batch > 1 else {}


@bentoml.service(
    workers=1,
    traffic={"timeout": 30, "max_concurrency": 1024},
    metrics={"enabled": False},
    logging={"access": {"enabled": False}},
)
class Work:
    def __init__(self):
        self._function = functions.load(WORK)

    @bentoml.api(route="/json", **BATCHING)
    def run(self, x: np.ndarray) -> np.ndarray:
        values = np.asarray(x)
        dtype = WORK.inputs[0].dtype
        if len(WORK.inputs) > 1:
            arrays = [np.ascontiguousarray(values[:, position], dtype) for position in range(len(WORK.inputs))]
        else:
            arrays = [np.ascontiguousarray(values, dtype)]
        results = self._function(arrays)
        return results[0] if len(results) == 1 else np.concatenate(results, axis=1)
