"""Trains a small LeNet on scikit-learn's digits and writes digits/1/digits.mindir, exported for batches of 32."""

import os

import mindspore as ms
import numpy as np
from mindspore import nn

from digits_data import load_split
from lenet import LeNet

BATCH = 32
EPOCHS = 20


def to_input(images):
    return images.astype(np.float32)[:, None] / 255


def train(net, images, labels):
    steps = len(images) // BATCH
    rates = nn.cosine_decay_lr(1e-4, 4e-3, EPOCHS * steps, steps, EPOCHS)
    step = nn.TrainOneStepCell(
        nn.WithLossCell(net, nn.SoftmaxCrossEntropyWithLogits(sparse=True, reduction="mean")),
        nn.Adam(net.trainable_params(), learning_rate=rates),
    )
    step.set_train()
    random = np.random.default_rng(1)
    for epoch in range(EPOCHS):
        order = random.permutation(len(images))
        losses = []
        for start in range(0, steps * BATCH, BATCH):
            rows = order[start : start + BATCH]
            losses.append(float(step(ms.Tensor(images[rows]), ms.Tensor(labels[rows])).asnumpy()))
        print(f"epoch {epoch + 1:2}: loss {np.mean(losses):.4f}")


def accuracy(net, images, labels):
    net.set_train(False)
    right = 0
    for start in range(0, len(images), BATCH):
        batch = np.zeros((BATCH, *images.shape[1:]), np.float32)
        rows = images[start : start + BATCH]
        batch[: len(rows)] = rows
        scores = net(ms.Tensor(batch)).asnumpy()[: len(rows)]
        right += int((scores.argmax(axis=1) == labels[start : start + BATCH]).sum())
    return right / len(images)


def main():
    ms.set_seed(1)
    ms.set_device("CPU")
    ms.set_context(mode=ms.GRAPH_MODE)
    train_images, test_images, train_labels, test_labels = load_split()
    net = LeNet()
    train(net, to_input(train_images), train_labels)
    reached = accuracy(net, to_input(test_images), test_labels)
    print(f"held-out accuracy: {reached:.4f} over {len(test_images)} images")

    version_dir = os.path.join(os.path.dirname(os.path.abspath(__file__)), "digits", "1")
    os.makedirs(version_dir, exist_ok=True)
    path = os.path.join(version_dir, "digits.mindir")
    ms.export(net, ms.Tensor(np.zeros((BATCH, 1, 8, 8), np.float32)), file_name=path, file_format="MINDIR")
    print("Exported", path)


if __name__ == "__main__":
    main()
