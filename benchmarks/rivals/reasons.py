"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {
    "resnet50": (
        "nearly all of the time is the model's. Where ours is at 80 ms and more, it was measured when all convolutions "
        "were direct sums in oneDNN, as onnxruntime's are; the kernels of MindSpore Lite, which the old package runs, "
        "need a tenth to a sixth less. Since then 3x3 convolutions are computed with fewer multiplications (Winograd's "
        "method), which takes about a sixth off the model's time. Next: 1x1 convolutions, of which oneDNN's take a "
        "quarter longer than their multiplications need."
    ),
    "lenet": (
        "MindSpore's convolutions for the processor are slower than onnxruntime's (see the bare figures). "
        "Next: the same as for resnet50."
    ),
}
