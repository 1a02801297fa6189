"""Servables and start-up scripts for tests, written into a folder of the test's own."""

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path

ADD_CONFIG = """
from mindspore_serving.server import register

register.declare_servable(servable_file="{model}.mindir", model_format="MindIR", with_batch_dim={with_batch_dim})


@register.register_method(output_names=["y"])
def add(x1, x2):
    y = register.call_servable(x1, x2)
    return y
"""

# Everything a servable of the old API may do: a preprocess that can fail, and a postprocess.
CHECKED_ADD_CONFIG = """
import numpy as np
from mindspore_serving.server import register

register.declare_servable(servable_file="{model}.mindir", model_format="MindIR", with_batch_dim={with_batch_dim})


def to_float32(x1, x2):
    if (x1 < 0).any():
        raise ValueError("negative numbers are not for us")
    return x1.astype(np.float32), x2.astype(np.float32)


def total(y):
    return y.sum()


@register.register_method(output_names=["y"])
def add(x1, x2):
    y = register.call_servable(x1, x2)
    return y


@register.register_method(output_names=["y", "total"])
def add_checked(x1, x2):
    x1, x2 = register.call_preprocess(to_float32, x1, x2)
    y = register.call_servable(x1, x2)
    t = register.call_postprocess(total, y)
    return y, t
"""

SERVER_SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
server.start_servables([{configs}])
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"]{grpc_arguments})
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"]{rest_arguments})
"""


def make_servable(folder: Path, name: str, config: str, versions: Mapping[int, Path]) -> Path:
    """Writes folder/name with its config and one copy of a model file for each version."""
    servable = folder / name
    servable.mkdir(parents=True)
    (servable / "servable_config.py").write_text(textwrap.dedent(config).lstrip())
    for version, model in versions.items():
        (servable / str(version)).mkdir()
        shutil.copy(model, servable / str(version))
    return servable


def make_om_servable(folder: Path, name: str, config: str, files: dict[str, str]) -> None:
    """Writes folder/name with its config and version 1 of model files of the AscendCL double (fake_ascendcl.h)."""
    version = make_servable(folder, name, config, {}) / "1"
    version.mkdir()
    for file, text in files.items():
        (version / file).write_text(text)


def add_config(model: str, *, with_batch_dim: bool = False, checked: bool = False) -> str:
    return (CHECKED_ADD_CONFIG if checked else ADD_CONFIG).format(model=model, with_batch_dim=with_batch_dim)


def make_script(folder: Path, servables: Sequence[str], *, grpc_arguments: str = "", rest_arguments: str = "") -> Path:
    """A start-up script for servables beside it, each given as arguments in Python: `"add", version_number=1`."""
    configs = ", ".join(f"server.ServableStartConfig(folder, {one}, device_ids=0)" for one in servables)
    script = folder / "start.py"
    script.write_text(
        SERVER_SCRIPT.format(configs=configs, grpc_arguments=grpc_arguments, rest_arguments=rest_arguments).lstrip()
    )
    return script
