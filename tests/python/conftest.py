"""Fixtures that several files share: what a servable_config.py registers, models of MindSpore."""

from typing import Any

import pytest

from register_configs import TWO_MODELS, load_config, unused_name


@pytest.fixture
def config(tmp_path):
    """Imports a servable_config.py with the given text as a worker does, and returns what it registered."""

    def load(text, name=None, files=()):
        return load_config(tmp_path, text, name or unused_name(), files)

    return load


@pytest.fixture
def method(config):
    """The method `f(x, z)` with this body, of a servable with two models."""

    def make(body, outputs="'y'", name=None):
        lines = "".join(f"    {line}\n" for line in body.splitlines())
        text = f"\n@register.register_method({outputs})\ndef f(x, z):\n{lines}"
        return config(TWO_MODELS + text, name).methods["f"]

    return make


@pytest.fixture
def export(tmp_path):
    """Exports a net into a file of the test's: mindspore_nets.export_net. MindSpore is imported by the first test."""
    from mindspore_nets import export_net
    from mindspore_serving.worker import way

    assert way.find_session_library() is not None, "build the session library first: ./dev build"

    def write(net: Any, *inputs: Any, **options: Any) -> str:
        return export_net(tmp_path / "model.mindir", net, *inputs, **options)

    return write


@pytest.fixture(scope="session")
def library() -> Any:
    """The mindspore session library, opened, in a process whose MindSpore computes on the CPU."""
    from mindspore_serving.worker import _mindspore, way
    from mindspore_serving.worker.session_library import SessionLibrary

    path = way.find_session_library()
    assert path is not None, "build the session library first: ./dev build"
    ms: Any = _mindspore.import_mindspore()
    ms.set_device("CPU")
    return SessionLibrary(path)
