"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {
    "resnet50": (
        "nearly all of the time is the model's. MindSpore's kernels for the processor take longer than "
        "onnxruntime's (see the bare figures of the case), and servers that run the same functions differ by "
        "less than a run of a second can tell. Next: longer runs, and convolutions of another kernel library "
        "behind the session ABI."
    ),
    "lenet": (
        "MindSpore's convolutions for the processor are slower than onnxruntime's (see the bare figures). "
        "Next: the same as for resnet50."
    ),
}
