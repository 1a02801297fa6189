"""Why a rival is ahead in a case, and what would be done next. Shown when the run finds such a row."""

REASONS: dict[str, str] = {
    "resnet50": (
        "nearly all of the time is the model's: with the same functions as the others, ours is level with the fastest "
        "of them within what two runs differ by. MindSpore's convolutions, fused and in oneDNN's blocked layout, take "
        "about as long as onnxruntime's; the kernels of MindSpore Lite, which the old package runs, need a tenth to a "
        "sixth less for the same model. Next: 3x3 convolutions by a method with fewer multiplications (Winograd), "
        "behind the session ABI."
    ),
    "lenet": (
        "MindSpore's convolutions for the processor are slower than onnxruntime's (see the bare figures). "
        "Next: the same as for resnet50."
    ),
}
