"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {
    "resnet50": (
        "nearly all of the time is the model's: with the same functions as the others, ours is level with the fastest "
        "of them within what two runs differ by. Of a bare run of MindSpore's model, 83 % is in the convolutions that "
        "oneDNN generates, 7 % in oneDNN's changes of layout between them, 9 % in MindSpore's own kernels (by perf). "
        "The kernels of MindSpore Lite, which the old package runs, need a third less for the same model. Next: 3x3 "
        "convolutions by a method with fewer multiplications, and activations fused into them, behind the session ABI."
    ),
    "lenet": (
        "MindSpore's convolutions for the processor are slower than onnxruntime's (see the bare figures). "
        "Next: the same as for resnet50."
    ),
}
