from rivals.protocols import V2Binary, V2Grpc, V2Json
from rivals.rival import Rival, Start, run_script


def _env(start: Start) -> dict[str, str]:
    # Its back-end loads libpython: it must be that of the interpreter, not one of the system with another patch level.
    library = start.python.resolve().parents[1] / "lib"
    return {"PYTRITON_HOME": str(start.scratch / "home"), "LD_LIBRARY_PATH": str(library)}


RIVALS = [
    Rival(
        "triton",
        "NVIDIA Triton (pytriton)",
        "triton",
        "nvidia-pytriton",
        {"grpc": V2Grpc(), "binary": V2Binary(), "json": V2Json()},
        (
            "the Triton server in the wheel of nvidia-pytriton, without a GPU; the model is a Python function bound "
            "by pytriton, which runs in a process of its own",
            "Triton's dynamic batcher up to the model's batch, `max_queue_delay_microseconds=0` (its default), "
            "`strict=False` (no check of types in Python), no metrics",
            "pipeline: the three stages in one function",
        ),
        lambda start: run_script(start, "triton"),
        _env,
        start_seconds=8,
    )
]
