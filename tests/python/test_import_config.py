"""Importing a servable_config.py, and telling why that failed."""

import json

import pytest

from mindspore_serving.worker import _servable_module
from register_configs import DECLARED, unused_name


def test_siblings_are_found_in_every_way(config, tmp_path):
    name = unused_name()
    (tmp_path / name).mkdir()
    (tmp_path / name / "helper.py").write_text("value = 5\n")
    (tmp_path / name / "servable_config.py").write_text(
        f"from .helper import value\nfrom {name}.helper import value as again\nassert value == again == 5\n"
    )
    _servable_module.import_servable_config(str(tmp_path), name)


@pytest.mark.parametrize("name", ["json", "numpy", "wheel", "six", "resnet.v2"])
def test_the_servables_name_may_be_anybodys(config, name):
    registration = config(
        DECLARED
        + """
import json, numpy.linalg
json.dumps({})
@register.register_method("y")
def method(x):
    return register.call_servable(x)
""",
        name=name,
    )
    assert registration.servable_name == name
    assert list(registration.methods) == ["method"]


def test_a_failure_is_told_with_the_users_file_line_and_message(config):
    with pytest.raises(RuntimeError) as raised:
        config(DECLARED + "\nregister.declare_servable('a', 'MindIR')\n")
    text = _servable_module.describe_failure(raised.value)
    line = DECLARED.count("\n") + 2
    assert "has been declared more than once" in text.splitlines()[0]
    assert f'servable_config.py", line {line}, in <module>' in text
    assert "_declare.py" not in text and "importlib" not in text
    with pytest.raises(ModuleNotFoundError) as missing:
        config("import nowhere_to_be_found\n")
    text = _servable_module.describe_failure(missing.value)
    assert text.startswith("ModuleNotFoundError: No module named 'nowhere_to_be_found'")
    assert 'servable_config.py", line 1' in text
    with pytest.raises(SyntaxError) as syntax:
        config("x = 1\ny = (\n")
    assert 'servable_config.py", line 2' in _servable_module.describe_failure(syntax.value)


def test_a_cause_is_told_unless_it_is_told_already():
    def failure(text):
        try:
            raise RuntimeError(text) from KeyError("deep")
        except RuntimeError as error:
            return _servable_module.describe_failure(error)

    assert "Caused by KeyError: 'deep'" in failure("shallow")
    assert "Caused by" not in failure("shallow, because of 'deep'")


def test_frames_of_pythons_own_library_are_told_with_a_users_alone():
    with pytest.raises(ValueError) as raised:
        json.loads("{")
    assert "test_import_config.py" in (text := _servable_module.describe_failure(raised.value)) and "decoder.py" in text
    inner = raised.value.with_traceback(raised.value.__traceback__.tb_next)
    assert "decoder.py" not in _servable_module.describe_failure(inner)
