"""Writes resnet50/1/resnet50.mindir, exported for batches of 8.

The weights are random: this example is about throughput, and its labels mean nothing.
"""

import os

import mindspore as ms
import numpy as np
from mindspore import nn, ops

BATCH = 8


def conv_bn(cin, cout, kernel, stride=1):
    return [
        nn.Conv2d(cin, cout, kernel, stride, pad_mode="pad", padding=kernel // 2),
        nn.BatchNorm2d(cout),
    ]


class Bottleneck(nn.Cell):
    def __init__(self, cin, width, stride):
        super().__init__()
        cout = 4 * width
        self.body = nn.SequentialCell(
            *conv_bn(cin, width, 1), nn.ReLU(),
            *conv_bn(width, width, 3, stride), nn.ReLU(),
            *conv_bn(width, cout, 1),
        )  # fmt: skip
        self.shortcut = nn.SequentialCell(*conv_bn(cin, cout, 1, stride)) if cin != cout or stride != 1 else None
        self.relu = nn.ReLU()

    def construct(self, x):
        skipped = x if self.shortcut is None else self.shortcut(x)
        return self.relu(self.body(x) + skipped)


class ResNet50(nn.Cell):
    def __init__(self):
        super().__init__()
        layers = [*conv_bn(3, 64, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, pad_mode="same")]
        channels = 64
        for width, blocks, stride in ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)):
            for block in range(blocks):
                layers.append(Bottleneck(channels, width, stride if block == 0 else 1))
                channels = 4 * width
        self.features = nn.SequentialCell(*layers)
        self.mean = ops.ReduceMean(keep_dims=False)
        self.classifier = nn.Dense(channels, 1000)

    def construct(self, image):
        return self.classifier(self.mean(self.features(image), (2, 3)))


def main():
    ms.set_seed(1)
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    version_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "resnet50", "1")
    os.makedirs(version_dir, exist_ok=True)
    path = os.path.join(version_dir, "resnet50.mindir")
    net = ResNet50().set_train(False)
    ms.export(net, ms.Tensor(np.zeros((BATCH, 3, 224, 224), np.float32)), file_name=path, file_format="MINDIR")
    print("Exported", path)


if __name__ == "__main__":
    main()
