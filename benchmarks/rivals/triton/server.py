"""NVIDIA Triton as nvidia-pytriton's wheel carries it, on the processor: gRPC and HTTP."""

import os

from pytriton.decorators import batch
from pytriton.model_config import DynamicBatcher, ModelConfig, Tensor
from pytriton.triton import Triton, TritonConfig
from rival_work import functions
from rival_work.works import chosen

WORK = chosen()
function = functions.load(WORK)


@batch
def infer(**arrays):
    results = function([arrays[tensor.name] for tensor in WORK.inputs])
    return {tensor.name: result for tensor, result in zip(WORK.outputs, results, strict=True)}


def tensors(described):
    return [Tensor(name=one.name, dtype=one.dtype, shape=one.shape) for one in described]


if __name__ == "__main__":
    config = TritonConfig(
        http_address="127.0.0.1",
        http_port=int(os.environ["RIVALS_HTTP_PORT"]),
        grpc_address="127.0.0.1",
        grpc_port=int(os.environ["RIVALS_GRPC_PORT"]),
        allow_metrics=False,
        log_verbose=0,
    )
    rows = max(WORK.max_batch, 1)
    model = ModelConfig(
        max_batch_size=rows, batching=True, batcher=DynamicBatcher(max_queue_delay_microseconds=0) if rows > 1 else None
    )
    with Triton(config=config) as triton:
        triton.bind(
            model_name=WORK.name,
            infer_func=infer,
            inputs=tensors(WORK.inputs),
            outputs=tensors(WORK.outputs),
            config=model,
            strict=False,
        )
        triton.serve()
