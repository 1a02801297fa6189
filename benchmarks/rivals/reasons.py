"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {
    "resnet50": "nearly all of the time is the model's. MindSpore's kernels for the processor take half as long again as "
    "onnxruntime's (see the bare figures of the case), and what is left between servers that run the same functions is "
    "within what a run of a second can tell. Next: longer runs, and convolutions through another kernel library behind "
    "the session ABI.",
    "lenet": "MindSpore's convolutions for the processor are slower than onnxruntime's (see the bare figures). Next: the "
    "same as for resnet50.",
}
