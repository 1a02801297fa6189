"""Exports the parts of small distributed models, for CPUs: NAME_RANK.mindir in batches of 16.

rows2, rows4: x @ WEIGHT, split by rows among 2 and 4 ranks. whole2: the sum of all rows of x in every row, so that an
answer shows what else was in its batch. single2: rows2 without a batch dimension. secret2: rows2, encrypted with
SECRET_KEY. staged2: two stages; the second one adds its own input x to what the first one sends (x @ SQUARE). slow2_1:
the same as staged2_1, but takes about half a second.
alone2: an AllGather that was exported for one rank. poison2: rows2, but rank 1 fails a run in which a row begins with a
value above POISON, after the collective, or has one in its second place, before it. ragged2: the positive elements of x
(no batch dimension); rank 1 leaves out those above POISON.

usage: export_rank_models.py FOLDER
"""

import sys
from pathlib import Path
from typing import Any

import numpy as np

BATCH, WIDTH, OUTPUTS = 16, 8, 6
POISON = 1000
SECRET_KEY = b"a key of 24 bytes, no mo"
WORLD = "mccl_world_group"
WEIGHT = np.sin(np.arange(WIDTH * OUTPUTS, dtype=np.float32)).reshape(WIDTH, OUTPUTS)
SLOW_WIDTH, SLOW_LAYERS = 1024, 32
SQUARE = np.cos(np.arange(WIDTH * WIDTH, dtype=np.float32)).reshape(WIDTH, WIDTH)


def main(folder: Path) -> None:
    import mindspore as ms
    from mindspore import Parameter, Tensor, nn, ops

    class Rows(nn.Cell):
        def __init__(self, rank: int, size: int):
            super().__init__()
            self.begin, self.end = rank * WIDTH // size, (rank + 1) * WIDTH // size
            self.weight = Parameter(Tensor(WEIGHT[self.begin : self.end]), name="weight")
            self.matmul, self.all_reduce = ops.MatMul(), ops.AllReduce(group=WORLD)

        def construct(self, x):
            return self.all_reduce(self.matmul(x[:, self.begin : self.end], self.weight))

    class Single(nn.Cell):
        def __init__(self, rank: int):
            super().__init__()
            self.rows = Rows(rank, 2)

        def construct(self, x):
            return self.rows(x.reshape(1, WIDTH)).reshape(OUTPUTS)

    class Whole(nn.Cell):
        def __init__(self):
            super().__init__()
            self.all_reduce, self.sum = ops.AllReduce(group=WORLD), ops.ReduceSum(keep_dims=True)

        def construct(self, x):
            return x * 0.0 + self.sum(self.all_reduce(x * 0.5), 0)

    class Alone(nn.Cell):
        def __init__(self):
            super().__init__()
            self.all_gather = ops.AllGather(group=WORLD)

        def construct(self, x):
            return self.all_gather(x)

    class Poison(nn.Cell):
        """Looks values above POISON up in a table that has none for them."""

        def __init__(self, rank: int):
            super().__init__()
            self.rows = Rows(rank, 2)
            self.weak = rank == 1
            self.table = Parameter(Tensor(np.zeros((4, OUTPUTS), np.float32)), name="table")

        def nothing(self, x):
            return ops.gather(self.table, ops.cast(ops.maximum(x - POISON, 0.0), ms.int32), 0)

        def construct(self, x):
            if not self.weak:
                return self.rows(x)
            part = self.rows.matmul(x[:, self.rows.begin : self.rows.end], self.rows.weight) + self.nothing(x[:, 1])
            return self.rows.all_reduce(part) + self.nothing(x[:, 0])

    class Ragged(nn.Cell):
        def __init__(self, rank: int):
            super().__init__()
            self.most = POISON if rank == 1 else 1e30
            self.all_reduce = ops.AllReduce(group=WORLD)

        def construct(self, x):
            half = self.all_reduce(x * 0.5)
            return ops.masked_select(half, ops.logical_and(half > 0, half < self.most))

    class First(nn.Cell):
        def __init__(self):
            super().__init__()
            self.weight = Parameter(Tensor(SQUARE), name="weight")
            self.matmul, self.send = ops.MatMul(), ops.Broadcast(0, group=WORLD)

        def construct(self, x):
            return self.send((self.matmul(x, self.weight),))[0]

    class Second(nn.Cell):
        def __init__(self):
            super().__init__()
            self.receive = ops.Broadcast(0, group=WORLD)

        def construct(self, x):
            return self.receive((x * 0.0,))[0] + x

    class SlowSecond(Second):
        def __init__(self):
            super().__init__()
            self.one = Parameter(Tensor(np.eye(SLOW_WIDTH, dtype=np.float32)), name="one")
            self.matmul, self.sum = ops.MatMul(), ops.ReduceSum()

        def construct(self, x):
            product = self.one + self.sum(x) * 0.0
            for _ in range(SLOW_LAYERS):
                product = self.matmul(product, self.one)
            return self.receive((x * 0.0,))[0] + x * (self.sum(product) / SLOW_WIDTH)

    def export(name: str, rank: int, net: Any, shape: tuple[int, ...] = (BATCH, WIDTH), **options: Any) -> None:
        path = folder / f"{name}_{rank}.mindir"
        ms.export(net, Tensor(np.zeros(shape, np.float32)), file_name=str(path), file_format="MINDIR", **options)

    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    folder.mkdir(parents=True, exist_ok=True)
    for rank in range(4):
        export("rows4", rank, Rows(rank, 4))
    for rank in range(2):
        export("rows2", rank, Rows(rank, 2))
        export("whole2", rank, Whole())
        export("single2", rank, Single(rank), (WIDTH,))
        export("secret2", rank, Rows(rank, 2), enc_key=SECRET_KEY, enc_mode="AES-GCM")
        export("staged2", rank, First() if rank == 0 else Second())
        export("alone2", rank, Alone())
        export("poison2", rank, Poison(rank))
        export("ragged2", rank, Ragged(rank), (WIDTH,))
    export("slow2", 1, SlowSecond())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
