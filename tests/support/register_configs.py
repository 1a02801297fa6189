"""Texts of servable_config.py files, and what becomes of them."""

import itertools

from mindspore_serving.server.register import _registry
from mindspore_serving.worker import _servable_module

HEAD = """
import functools
import numpy as np
from mindspore_serving.server import register

def cast(x1, x2):
    return x1.astype(np.float32), x2.astype(np.float32)

def halve(x):
    return x / 2

def many(instances):
    for (x,) in instances:
        yield x
"""
DECLARED = HEAD + 'register.declare_servable("add.mindir", "MindIR", with_batch_dim=False)\n'
TWO_MODELS = (
    HEAD
    + """
add_model = register.declare_model("add.mindir", "MindIR", with_batch_dim=False)
sub_model = register.declare_model(model_file=["sub.mindir", "mul.mindir"], model_format="mindir")
"""
)

_numbers = itertools.count()


def unused_name():
    """A servable's name that no test has had: what is imported stays imported."""
    return f"servable{next(_numbers)}"


def import_config(folder, text, name, files=()):
    """Imports a servable_config.py with this text as a worker does, and returns what it registered, and its module.

    The servable is made in the folder, with empty files of these names.
    """
    servable = folder / name
    servable.mkdir()
    for file in files:
        (servable / file).touch()
    (servable / "servable_config.py").write_text(text)
    module = _servable_module.import_servable_config(str(folder), name)
    return _registry.registration_of(str(servable)), module


def load_config(folder, text, name, files=()):
    """As import_config, but returns only what was registered."""
    return import_config(folder, text, name, files)[0]


def refs(values):
    return [(value.stage, value.index) for value in values]
