import os

from rivals.protocols import MsGrpc, MsRest
from rivals.rival import Rival, Start, run_script


def _env(start: Start) -> dict[str, str]:
    """Lite's wheel has the runtime and its plug-ins under other names than those that are opened."""
    packages = next((start.python.parents[1] / "lib").glob("python*")) / "site-packages"
    lite = packages / "mindspore_lite" / "lib"
    links = start.scratch / "lib"
    links.mkdir(exist_ok=True)
    names = {"libmindspore-lite.so": lite / "libmindspore-extendrt_python.so"}
    names |= {library.name.replace("_python", ""): library for library in lite.glob("lib*.so*")}
    for name, library in names.items():
        (links / name).unlink(missing_ok=True)
        (links / name).symlink_to(library)
    interpreter = start.python.resolve().parents[1] / "lib"
    own = packages / "mindspore_serving" / "lib"
    return {"LD_LIBRARY_PATH": os.pathsep.join(map(str, (links, lite, own, interpreter)))}


RIVALS = [
    Rival(
        "old",
        "mindspore-serving 2.0.2",
        "old",
        "mindspore-serving",
        {"grpc": MsGrpc(), "rest": MsRest()},
        (
            "defaults; MindSpore Lite 2.0.0 from its wheel as the runtime (`enable_lite=True`), with models that its "
            "converter makes from the ONNX files; needs Python 3.7, the only one for which both packages are to be had",
            "batches as the models were exported; Python stages one instance after the other, as its manual shows",
        ),
        lambda start: run_script(start, "old"),
        _env,
        pythons=("3.7",),
        start_seconds=2.5,
    )
]
