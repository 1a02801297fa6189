"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {
    "resnet50": (
        "nearly all of the time is the model's, and runs of a few requests differ by a tenth on a shared machine: "
        "look at the bare figures of the same run first. 3x3 convolutions are computed with fewer multiplications "
        "(Winograd's method) than onnxruntime's. Next: 1x1 convolutions, of which oneDNN's take a quarter longer "
        "than their multiplications need."
    ),
    "lenet": (
        "MindSpore's convolutions for the processor are slower than onnxruntime's (see the bare figures). "
        "Next: the same as for resnet50."
    ),
}
