"""Exports a model of two stages that each take milliseconds, for two ranks on CPUs: stages_RANK.mindir, batches of 16.

usage: export_stages.py FOLDER
"""

import sys
from pathlib import Path

import numpy as np

BATCH, WIDTH, LAYERS = 16, 768, 8


def main(folder: Path) -> None:
    import mindspore as ms
    from mindspore import Parameter, Tensor, nn, ops

    class Stage(nn.Cell):
        """Layers that give back what they get; rank 0 sends the result on, rank 1 receives before it begins."""

        def __init__(self, rank: int) -> None:
            super().__init__()
            self.rank = rank
            self.weights = ms.ParameterTuple(
                [Parameter(Tensor(np.eye(WIDTH, dtype=np.float32)), name=f"weight{layer}") for layer in range(LAYERS)]
            )
            self.matmul = ops.MatMul()
            self.hand_over = ops.Broadcast(0, group="mccl_world_group")

        def construct(self, x):
            y = x if self.rank == 0 else self.hand_over((x * 0.0,))[0]
            for weight in self.weights:
                y = self.matmul(y, weight)
            return self.hand_over((y,))[0] if self.rank == 0 else y

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(2):
        path = folder / f"stages_{rank}.mindir"
        ms.export(Stage(rank), Tensor(np.zeros((BATCH, WIDTH), np.float32)), file_name=str(path), file_format="MINDIR")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
