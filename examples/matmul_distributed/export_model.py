"""Splits the model y = x @ weight by rows among the ranks: writes models/rank_N.mindir for each rank, weight.npy (the
unsplit model, for the client) and rank_table.json, which puts all ranks on this machine.

MATMUL_RANKS says how many ranks there are: 2 unless it is set.
"""

import json
import os

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

HERE = os.path.dirname(os.path.abspath(__file__))
RANKS = int(os.environ.get("MATMUL_RANKS", "2"))
BATCH, INPUTS, OUTPUTS = 32, 96, 16

# What MindSpore calls the group of all ranks on CPU. On Ascend it is hccl_world_group.
ALL_RANKS = "mccl_world_group"


class RowParallel(nn.Cell):
    """A rank multiplies its columns of x by its rows of the weight; the ranks add up what they have."""

    def __init__(self, weight, rank):
        super().__init__()
        rows = INPUTS // RANKS
        self.begin, self.end = rank * rows, (rank + 1) * rows
        self.weight = Parameter(Tensor(weight[self.begin : self.end]), name="weight")
        self.matmul = ops.MatMul()
        self.all_reduce = ops.AllReduce(group=ALL_RANKS)

    def construct(self, x):
        return self.all_reduce(self.matmul(x[:, self.begin : self.end], self.weight))


def main():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    weight = np.random.default_rng(1).normal(size=(INPUTS, OUTPUTS)).astype(np.float32)
    np.save(os.path.join(HERE, "weight.npy"), weight)
    os.makedirs(os.path.join(HERE, "models"), exist_ok=True)
    for rank in range(RANKS):
        path = os.path.join(HERE, "models", f"rank_{rank}.mindir")
        x = Tensor(np.zeros((BATCH, INPUTS), np.float32))
        ms.export(RowParallel(weight, rank), x, file_name=path, file_format="MINDIR")
        print("Exported", path)
    devices = [{"device_id": str(rank), "rank_id": str(rank)} for rank in range(RANKS)]
    with open(os.path.join(HERE, "rank_table.json"), "w") as file:
        json.dump({"version": "1.0", "server_list": [{"server_id": "127.0.0.1", "device": devices}]}, file, indent=2)


if __name__ == "__main__":
    main()
