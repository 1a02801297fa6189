"""What scripts and servable_config.py files of earlier releases use: it is still there, and says what replaces it."""

import logging

import pytest

import mindspore_serving
from mindspore_serving import master, server, worker
from mindspore_serving.server import _launch, _server, register

# ---- what the worker's log says

CALLS = """
import numpy as np
from mindspore_serving.server import register

def halve(x):
    return x / 2

def many(instances):
    for (x,) in instances:
        yield x

register.declare_servable("a.mindir", "MindIR", options=register.AclOptions(output_type="FP16"))

@register.register_method("y")
def first(x):
    x = register.call_preprocess(halve, x)
    y = register.call_servable(x)
    return register.call_postprocess(halve, y)

@register.register_method("y")
def second(x):
    x = register.call_preprocess_pipeline(many, x)
    y = register.call_servable(x)
    return register.call_postprocess_pipeline(many, y)

@register.register_method("y")
def third(x):
    x = register.call_preprocess(halve, x)
    return register.call_servable(x)
"""
REPLACEMENTS = {
    "declare_servable": "declare_model",
    "AclOptions": "Context with AscendDeviceInfo",
    "call_preprocess": "add_stage(function, ...)",
    "call_servable": "add_stage(model, ...)",
    "call_postprocess": "add_stage(function, ...)",
    "call_preprocess_pipeline": "add_stage(function, ..., batch_size=n)",
    "call_postprocess_pipeline": "add_stage(function, ..., batch_size=n)",
}


def test_every_call_of_earlier_releases_is_told_once_with_what_replaces_it(config, caplog):
    with caplog.at_level(logging.INFO, "mindspore_serving"):
        registration = config(CALLS)
    name = registration.servable_name
    assert [record.getMessage() for record in caplog.records] == [
        f"Servable {name} uses {call} of earlier releases (deprecated): it is served as before; {new} replaces it"
        for call, new in REPLACEMENTS.items()
    ]
    assert {record.levelno for record in caplog.records} == {logging.INFO}


def test_the_newer_calls_are_not_told(config, caplog):
    with caplog.at_level(logging.INFO, "mindspore_serving"):
        config(
            "from mindspore_serving.server import register\n"
            "model = register.declare_model('a.mindir', 'MindIR', context=register.Context(thread_num=1))\n"
            "@register.register_method('y')\n"
            "def f(x):\n"
            "    return register.add_stage(model, x, outputs_count=1)\n"
            "other = register.PipelineServable('me', 'f')\n"
            "@register.register_pipeline('y')\n"
            "def p(x):\n"
            "    return other.run(x)\n"
        )
    assert caplog.records == []


# ---- names of release 1.2


def test_the_register_module_of_release_1_2_is_the_one_of_today(config, caplog):
    with caplog.at_level(logging.WARNING, "mindspore_serving"):
        registration = config(CALLS.replace("mindspore_serving.server", "mindspore_serving.worker"))
    assert list(registration.methods) == ["first", "second", "third"]
    from mindspore_serving.worker import register as old

    assert {name: getattr(old, name) for name in register.__all__} == {
        name: getattr(register, name) for name in register.__all__
    }


@pytest.fixture
def started(monkeypatch):
    """What the functions of mindspore_serving.server are called with."""
    calls = []
    for name in ("start_grpc_server", "start_restful_server", "start_servables", "stop"):
        monkeypatch.setattr(server, name, lambda *args, name=name: calls.append((name, *args)))
    return calls


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda: master.start_grpc_server(), ("start_grpc_server", "0.0.0.0:5500", 100, None)),
        (
            lambda: master.start_grpc_server("127.0.0.1", 5501, max_msg_mb_size=7),
            ("start_grpc_server", "127.0.0.1:5501", 7, None),
        ),
        (lambda: master.start_restful_server(), ("start_restful_server", "0.0.0.0:5900", 100, None)),
        (
            lambda: master.start_restful_server(ip="127.0.0.1", restful_port=1500),
            ("start_restful_server", "127.0.0.1:1500", 100, None),
        ),
        (lambda: master.stop(), ("stop",)),
    ],
)
def test_master_hands_on_to_the_server_and_warns(started, call, expected):
    with pytest.warns(DeprecationWarning, match=r"is a name of release 1\.2; mindspore_serving\.server\.\w+ replaces"):
        call()
    assert started == [expected]


def test_start_servable_in_master_is_one_start_config(started):
    with pytest.warns(DeprecationWarning, match="server.start_servables replaces it"):
        worker.start_servable_in_master("/models", "add", 2, "Davinci", device_id=3)
    ((name, config),) = started
    assert name == "start_servables"
    assert (config.servable_directory, config.servable_name, config.version_number) == ("/models", "add", 2)
    assert (config.device_ids, config.device_type) == ((3,), "Ascend")


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: master.start_grpc_server(5500), "'ip' should be str"),
        (lambda: master.start_grpc_server("127.0.0.1", 0), r"'grpc_port' should be in range \[1, 65535\]"),
        (lambda: master.start_grpc_server("127.0.0.1", "5500"), "'grpc_port' should be int"),
        (lambda: master.start_restful_server("127.0.0.1", 65536), r"'restful_port' should be in range \[1, 65535\]"),
        (lambda: worker.start_servable_in_master("/models", "add", device_id=-1), "'device_id' should be >= 0"),
        (lambda: worker.start_servable_in_master("/models", ""), "'servable_name' should not be empty str"),
    ],
)
def test_wrong_values_under_the_old_names_stop_the_server_too(monkeypatch, call, message):
    stopped = []
    monkeypatch.setattr(_server, "stop", lambda: stopped.append(True))
    with pytest.raises(RuntimeError, match=message):
        call()
    assert stopped


def test_the_names_of_release_1_2_do_not_hide_the_workers_own_modules():
    assert mindspore_serving.worker.__name__ == "mindspore_serving.worker"
    assert _launch.worker_command()[-1] == "mindspore_serving.worker"
    assert master.__all__ == ["start_grpc_server", "start_restful_server", "stop"]


# ---- start_servables of the later releases


def test_enable_lite_is_taken_and_said_to_have_no_effect(tmp_path):
    missing = server.ServableStartConfig(str(tmp_path), "add", 0)
    with (
        pytest.warns(UserWarning, match="enable_lite has no effect: MindSpore runs the models"),
        pytest.raises(RuntimeError, match="Check servable config failed, directory"),
    ):
        server.start_servables(missing, enable_lite=True)
    with pytest.raises(RuntimeError, match="Check servable config failed, directory"):
        server.start_servables(missing, False)
    with pytest.raises(RuntimeError, match="'enable_lite' should be bool"):
        server.start_servables(missing, 1)
