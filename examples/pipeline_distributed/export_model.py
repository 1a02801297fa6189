"""Splits a classifier after its first layer: models/rank_0.mindir is stage 0, models/rank_1.mindir stage 1. Writes its
unsplit weights as well (weights.npz, for the client) and rank_table.json, which puts both ranks on this machine.

On CPU a stage hands its result on by a Broadcast: MindSpore has no Send and Receive there.
"""

import json
import os

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn, ops

HERE = os.path.dirname(os.path.abspath(__file__))
BATCH, INPUTS, HIDDEN, CLASSES = 16, 64, 32, 10

# What MindSpore calls the group of all ranks on CPU. On Ascend it is hccl_world_group.
ALL_RANKS = "mccl_world_group"


class FirstStage(nn.Cell):
    """Gets the inputs, and sends what the first layer makes of them."""

    def __init__(self, weight):
        super().__init__()
        self.weight = Parameter(Tensor(weight), name="weight")
        self.matmul, self.relu = ops.MatMul(), ops.ReLU()
        self.send = ops.Broadcast(0, group=ALL_RANKS)

    def construct(self, x):
        (sent,) = self.send((self.relu(self.matmul(x, self.weight)),))
        return sent


class SecondStage(nn.Cell):
    """Has no inputs. A Broadcast wants a tensor of the right shape from a rank that receives: here it is zeros."""

    def __init__(self, weight):
        super().__init__()
        self.place = Parameter(Tensor(np.zeros((BATCH, HIDDEN), np.float32)), name="place")
        self.weight = Parameter(Tensor(weight), name="weight")
        self.receive = ops.Broadcast(0, group=ALL_RANKS)
        self.matmul, self.softmax = ops.MatMul(), ops.Softmax()

    def construct(self):
        (received,) = self.receive((self.place + 0.0,))
        return self.softmax(self.matmul(received, self.weight))


def export(rank, net, *inputs):
    path = os.path.join(HERE, "models", f"rank_{rank}.mindir")
    ms.export(net, *inputs, file_name=path, file_format="MINDIR")
    print("Exported", path)


def main():
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    random = np.random.default_rng(1)
    first = random.normal(size=(INPUTS, HIDDEN)).astype(np.float32) / 8
    second = random.normal(size=(HIDDEN, CLASSES)).astype(np.float32) / 4
    np.savez(os.path.join(HERE, "weights.npz"), first=first, second=second)
    os.makedirs(os.path.join(HERE, "models"), exist_ok=True)
    export(0, FirstStage(first), Tensor(np.zeros((BATCH, INPUTS), np.float32)))
    export(1, SecondStage(second))
    devices = [{"device_id": str(rank), "rank_id": str(rank)} for rank in range(2)]
    with open(os.path.join(HERE, "rank_table.json"), "w") as file:
        json.dump({"version": "1.0", "server_list": [{"server_id": "127.0.0.1", "device": devices}]}, file, indent=2)


if __name__ == "__main__":
    main()
