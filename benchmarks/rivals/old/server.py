"""The old package, mindspore-serving 2.0.2, with MindSpore Lite's runtime.

It reads the source of a method, which must therefore be plain: the configuration is written for the work, as a user
would write it. Its runtime is too old for MindIR files of today: Lite's converter makes its own from the ONNX files.
"""

import os
import shutil
from pathlib import Path

import mindspore_lite
from rival_work import functions
from rival_work.works import chosen

from mindspore_serving import server

HEAD = '''"""{name}, in the calls of release 2."""

from mindspore_serving.server import register
from rival_work import functions


def to_unit(x):
    return functions.to_unit(x)[0]


def best(scores):
    digit, share = functions.best(scores[None])
    return digit[0], share[0]

'''


def configuration(work):
    declared, lines, values = [], [], [tensor.name for tensor in work.inputs]
    for position, name in enumerate(work.stages):
        results = [tensor.name for tensor in work.outputs] if name == work.stages[-1] else [f"v{position}"]
        stage = name
        if name not in ("to_unit", "best"):
            stage = f"model{position}"
            file = name if name in functions.NETWORKS else work.name
            batched = name in functions.NETWORKS or work.max_batch > 1
            call = f'register.declare_model("{file}.mindir", "MindIR", with_batch_dim={batched})'
            declared.append(f"{stage} = {call}")
        call = f"register.add_stage({stage}, {', '.join(values)}, outputs_count={len(results)})"
        lines.append(f"    {', '.join(results)} = {call}")
        values = results
    names = ", ".join(f'"{value}"' for value in values)
    method = ["", "", f"@register.register_method(output_names=[{names}])"]
    method.append(f"def predict({', '.join(tensor.name for tensor in work.inputs)}):")
    return HEAD.format(name=work.name) + "\n".join(declared + method + lines + ["    return " + ", ".join(values), ""])


def models(work):
    """Names of the model files that a work needs, with the shapes of their inputs."""
    if work.max_batch == 1 and not set(work.stages) & set(functions.NETWORKS):
        batch = []  # exported without a batch dimension
    else:
        batch = [work.max_batch]
    found = {}
    for name in work.stages:
        if name in functions.NETWORKS:
            shape = (128,) if name in ("mix", "head") else work.inputs[0].shape
            found[name] = {"x": batch + list(shape)}
        elif name in ("add", "plus_one"):
            found[work.name] = {tensor.name: batch + list(tensor.shape) for tensor in work.inputs}
    return found


def convert(name, shapes, folder):
    converter = mindspore_lite.Converter()
    converter.input_shape = shapes
    converter.input_format = mindspore_lite.Format.NCHW
    converter.save_type = mindspore_lite.ModelType.MINDIR
    source = Path(os.environ["RIVALS_MODELS"]) / (name + ".onnx")
    converter.convert(mindspore_lite.FmkType.ONNX, str(source), str(folder / name))


def lay_out(folder, work):
    version = folder / work.name / "1"
    shutil.rmtree(str(folder), ignore_errors=True)
    version.mkdir(parents=True)
    (folder / work.name / "servable_config.py").write_text(configuration(work))
    for name, shapes in models(work).items():
        convert(name, shapes, version)


def main():
    folder = Path.cwd() / "servables"
    lay_out(folder, chosen())
    config = server.ServableStartConfig(str(folder), chosen().name, device_ids=0, device_type="CPU")
    server.start_servables([config], enable_lite=True)
    server.start_grpc_server("127.0.0.1:" + os.environ["RIVALS_GRPC_PORT"], max_msg_mb_size=100)
    server.start_restful_server("127.0.0.1:" + os.environ["RIVALS_HTTP_PORT"], max_msg_mb_size=100)


if __name__ == "__main__":
    main()
