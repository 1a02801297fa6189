"""Options of a model's device: what is handed on, and what is told of the rest.

What Ascend and GPU get is shown with a stand-in for MindSpore: nothing here has run on such a device.
"""

import logging
import os
import subprocess
import sys
from types import SimpleNamespace

import pytest

from mindspore_serving.server import register
from mindspore_serving.server.register._registry import ModelDeclaration
from mindspore_serving.worker import _mindspore
from mindspore_serving.worker.device_options import DeviceOptions


def declaration(options=None, context=None, name="a.mindir", **kwargs):
    return ModelDeclaration("declare_model", (name,), "mindir", True, options, (), context, **kwargs)


def context_of(*infos, **kwargs):
    context = register.Context(**kwargs)
    for info in infos:
        context.append_device_info(info)
    return context


class StandIn:
    """MindSpore's calls that choose a device and its options."""

    GRAPH_MODE = 0

    def __init__(self, error=None):
        self.calls = []

        def record(name):
            def call(*args, **kwargs):
                self.calls.append((name, *args, *([kwargs] if kwargs else [])))
                if error:
                    raise RuntimeError(error)

            return call

        self.set_device = record("set_device")
        self.set_context = record("set_context")
        self.runtime = SimpleNamespace(dispatch_threads_num=record("dispatch_threads_num"))
        self.device_context = SimpleNamespace(
            ascend=SimpleNamespace(op_precision=SimpleNamespace(precision_mode=record("precision_mode")))
        )

    @staticmethod
    def get_context(name):
        return {"device_target": "Ascend"}[name]


@pytest.fixture
def stand_in(monkeypatch):
    def use(error=None):
        made = StandIn(error)
        monkeypatch.setattr(_mindspore, "import_mindspore", lambda: made)
        return made

    _mindspore.set_device.cache_clear()
    yield use
    _mindspore.set_device.cache_clear()


@pytest.mark.parametrize(
    ("device_type", "device_id", "expected"),
    [
        ("Ascend", 3, ("set_device", "Ascend", 3)),
        ("ascend", 0, ("set_device", "Ascend", 0)),
        ("GPU", 1, ("set_device", "GPU", 1)),
        ("CPU", 5, ("set_device", "CPU")),  # there is but one
        (None, 2, ("set_device", "Ascend", 2)),  # what this MindSpore runs on
    ],
)
def test_mindspore_is_given_the_device_and_its_number(stand_in, device_type, device_id, expected):
    mindspore = stand_in()
    assert _mindspore.set_device(device_type, device_id) == expected[1]
    assert mindspore.calls[0] == expected


def test_an_ascend_that_is_not_there_says_what_is_missing(stand_in):
    stand_in("Unsupported device target Ascend")
    with pytest.raises(
        RuntimeError,
        match=r"device_type 'Ascend' is inconsistent with current running environment: Unsupported device target "
        r"Ascend. Ascend's runtime is not found \(libascendcl.so: cannot open shared object.*run its set_env.sh",
    ):
        _mindspore.set_device("Ascend", 0)


def test_options_for_ascend_reach_mindspore(stand_in, caplog):
    mindspore = stand_in()
    options = register.AscendDeviceInfo(
        precision_mode="allow_mix_precision",
        op_select_impl_mode="high_precision",
        fusion_switch_config_path="/a/fusion.cfg",
        buffer_optimize_mode="off_optimize",
    )
    with caplog.at_level(logging.WARNING):
        DeviceOptions().apply(declaration(context=context_of(options)), "Ascend")
    assert mindspore.calls == [
        ("precision_mode", "allow_mix_precision"),
        (
            "set_context",
            {
                "ascend_config": {
                    "ge_options": {
                        "global": {"ge.opSelectImplmode": "high_precision"},
                        "session": {"ge.fusionSwitchFile": "/a/fusion.cfg", "ge.bufferOptimize": "off_optimize"},
                    }
                }
            },
        ),
    ]
    assert caplog.records == []


def test_options_that_mindspore_does_not_have_are_named_one_by_one(stand_in, caplog):
    mindspore = stand_in()
    options = register.AclOptions(insert_op_cfg_path="/a/aipp.cfg", output_type="FP16", precision_mode="force_fp16")
    with caplog.at_level(logging.WARNING):
        DeviceOptions().apply(declaration(options), "Ascend")
    assert mindspore.calls == [("precision_mode", "force_fp16")]
    aipp, output = (record.getMessage() for record in caplog.records)
    assert aipp.startswith("AclOptions(insert_op_cfg_path='/a/aipp.cfg') of declare_model for model 'a.mindir' has no")
    assert "no AIPP" in aipp
    assert output.startswith("AclOptions(output_type='FP16') of declare_model") and "conversion" in output


def test_options_for_ascend_are_set_once_a_worker(stand_in, caplog):
    mindspore = stand_in()
    options = DeviceOptions()
    with caplog.at_level(logging.WARNING):
        options.apply(declaration(register.AclOptions(precision_mode="force_fp16")), "Ascend")
        options.apply(declaration(register.AclOptions(precision_mode="force_fp16"), name="b.mindir"), "Ascend")
        assert caplog.records == []
        options.apply(declaration(name="c.mindir"), "Ascend")
    assert mindspore.calls == [("precision_mode", "force_fp16")]
    assert "model 'c.mindir' runs with {'precision_mode': 'force_fp16'} of the first one" in caplog.text


def test_an_option_that_mindspore_refuses_fails_the_start(stand_in):
    stand_in("The 'precision_mode' can not be set repeatedly.")
    with pytest.raises(RuntimeError, match="MindSpore refuses an option for Ascend: The 'precision_mode' can not"):
        DeviceOptions().apply(declaration(register.AclOptions(precision_mode="force_fp16")), "Ascend")


@pytest.mark.parametrize(
    ("made", "device", "text", "reason"),
    [
        (declaration(register.GpuOptions(precision_mode="fp16")), "GPU", "GpuOptions(precision_mode='fp16')", "export"),
        (
            declaration(register.GpuOptions(precision_mode="fp16")),
            "CPU",
            "GpuOptions(precision_mode='fp16')",
            "for GPU",
        ),
        (declaration(register.AclOptions(output_type="FP16")), "CPU", "AclOptions(output_type='FP16')", "for Ascend"),
        (declaration(register.AclOptions(output_type="FP16")), "OM", "AclOptions(output_type='FP16')", "was compiled"),
        (
            declaration(register.GpuOptions(precision_mode="fp16")),
            "OM",
            "GpuOptions(precision_mode='fp16')",
            "on Ascend",
        ),
        (
            declaration(context=context_of(register.CPUDeviceInfo(precision_mode="fp16"))),
            "CPU",
            "CPUDeviceInfo(precision_mode='fp16')",
            "export it in float16",
        ),
        (declaration(context=context_of(enable_parallel=True)), "CPU", "enable_parallel=True", "one after the other"),
        (declaration(context=context_of(thread_num=2)), "OM", "thread_num=2", "run on the device"),
        (declaration({"a": "b"}), "CPU", "options={'a': 'b'}", "instead of a dict"),
        (
            declaration(register.GpuOptions(precision_mode="origin"), context_of()),
            "CPU",
            "GpuOptions(precision_mode='origin'), beside a context,",
            "context's device info counts",
        ),
        (declaration(config_file="/a/mixed.cfg"), "CPU", "config_file '/a/mixed.cfg'", "MindSpore Lite"),
    ],
)
def test_what_has_no_effect_is_told_with_its_reason(caplog, made, device, text, reason):
    with caplog.at_level(logging.WARNING):
        DeviceOptions().apply(made, device)
    (record,) = caplog.records
    assert record.getMessage().startswith(
        f"{text} of declare_model for model 'a.mindir' has no effect on this device: "
    )
    assert reason in record.getMessage()


@pytest.mark.parametrize(
    "context",
    [
        context_of(register.CPUDeviceInfo(precision_mode="origin"), thread_num=2, thread_affinity_core_list=(0,)),
        context_of(enable_parallel=False),
        context_of(register.GPUDeviceInfo()),
    ],
)
def test_what_is_as_asked_for_is_not_logged(caplog, context):
    with caplog.at_level(logging.WARNING):
        DeviceOptions().apply(declaration(context=context), "CPU")
    assert caplog.records == []


BIND = """
import logging, os, threading
logging.basicConfig(format="%(message)s", level=logging.WARNING)
from mindspore_serving.server import register
from mindspore_serving.server.register._registry import ModelDeclaration
from mindspore_serving.worker.device_options import bind_threads

def model(cores):
    context = register.Context(thread_affinity_core_list=cores)
    return ModelDeclaration("declare_model", ("a.mindir",), "mindir", True, None, (), context)

bind_threads([model(cores) for cores in CORES])
seen = []
thread = threading.Thread(target=lambda: seen.append(sorted(os.sched_getaffinity(0))))
thread.start(); thread.join()
print(seen[0])
"""


def bound(cores):
    """Cores of a thread made after binding, and what was logged, in a process of its own."""
    code = BIND.replace("CORES", repr(cores))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip(), done.stderr


def test_threads_made_later_run_on_the_cores_of_all_models_together():
    available = sorted(os.sched_getaffinity(0))
    assert bound([[available[-1]]]) == (str([available[-1]]), "")
    assert bound([[available[-1]], [available[0]]]) == (str(sorted({available[0], available[-1]})), "")


def test_cores_that_are_not_there_are_named_and_the_others_used():
    available = sorted(os.sched_getaffinity(0))
    there, log = bound([[available[0], 4000]])
    assert there == str([available[0]])
    assert f"names the processor cores [4000], which this process may not use; it may use {available}" in log
    assert bound([[4000]])[0] == str(available)
