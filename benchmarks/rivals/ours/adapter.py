"""Ours twice: with MindSpore models, as users run it, and with the functions that the other servers run."""

from rivals.protocols import MsGrpc, MsRest
from rivals.rival import Rival, run_script


def _rival(name: str, title: str, kind: str, setting: str) -> Rival:
    return Rival(
        name,
        title,
        "ours",
        "mindspore-serving",
        {"grpc": MsGrpc(), "rest": MsRest()},
        ("defaults everywhere: one worker, no waiting for fuller batches", setting),
        lambda start: run_script(start, "ours"),
        lambda start: {"RIVALS_OURS": kind},
        own_interpreter=True,
        packages_beside=kind == "functions",
        start_seconds=2.5,
    )


RIVALS = [
    _rival("ours", "MindSpore Serving", "mindspore", "models: MindIR, run by the `mindspore` session library"),
    _rival(
        "ours-functions",
        "MindSpore Serving, others' functions",
        "functions",
        "the functions that the other servers run (NumPy, onnxruntime), in Python stages that take stacked arrays",
    ),
]
