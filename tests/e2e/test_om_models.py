"""OM models end to end: the acl session library in a real worker, on a test double of AscendCL, not on hardware.

tests/support/fake_ascendcl says what the double's model files hold.
"""

from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import make_om_servable, make_script
from servers import ServerProcess

PAIR = "input x1 float32 {rows}2,2\ninput x2 float32 {rows}2,2\noutput y float32 {rows}2,2\nrun add\n"
ADD_OM = "fake-om\n" + PAIR.format(rows="")
BATCHES_OM = "fake-om\nbatches 1,2,8\n" + PAIR.format(rows="-1,")

CONFIG = """
from mindspore_serving.server import register

add_model = register.declare_model("add.om", "OM", with_batch_dim=False)
batches_model = register.declare_model(
    "batches.om", "om", options=register.AclOptions(precision_mode="allow_fp32_to_fp16")
)
mindir_model = register.declare_model("add.mindir", "MindIR", with_batch_dim=False)


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.add_stage(add_model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def add_batched(x1, x2):
    return register.add_stage(batches_model, x1, x2, outputs_count=1)


@register.register_method(output_names=["y"])
def add_twice(x1, x2):  # x1 + 2 * x2, on two runtimes
    y = register.add_stage(mindir_model, x1, x2, outputs_count=1)
    return register.add_stage(batches_model, y, x2, outputs_count=1)
"""

ONE_CONFIG = """
from mindspore_serving.server import register

register.declare_servable(servable_file="add.om", model_format="OM", with_batch_dim=False)


@register.register_method(output_names=["y"])
def add(x1, x2):
    return register.call_servable(x1, x2)
"""


@pytest.fixture(scope="module")
def om_server(tmp_path_factory, models, ascend):
    folder = tmp_path_factory.mktemp("om")
    make_om_servable(folder, "many", CONFIG, {"add.om": ADD_OM, "batches.om": BATCHES_OM})
    (folder / "many" / "1" / "add.mindir").write_bytes((models / "add.mindir").read_bytes())
    report = folder / "report"
    with ServerProcess(make_script(folder, ['"many"']), env={**ascend, "FAKE_ASCENDCL_REPORT": str(report)}) as server:
        yield server
    # Only now has the worker given everything back.
    assert report.read_text() == "live 0 broken ''\n"


@pytest.mark.parametrize(("method", "times"), [("add", 1), ("add_batched", 1), ("add_twice", 2)])
@pytest.mark.parametrize("count", [1, 2, 5, 20])
def test_OmModelsAnswerAsMindIRDoes(om_server, make_instances, method, times, count):
    instances = make_instances(count, seed=count)
    answers = Client(om_server.grpc_address, "many", method).infer(instances)
    assert len(answers) == count
    for instance, answer in zip(instances, answers, strict=True):
        np.testing.assert_allclose(answer["y"], instance["x1"] + times * instance["x2"], rtol=1e-6)


def test_TheLogSaysHowOmModelsAreRun(om_server):
    log = om_server.worker_logs()
    assert "Model add.om is run by acl\n" in log
    assert "Model batches.om is run by acl, batch sizes [1, 2, 8]\n" in log
    assert (
        "AclOptions(precision_mode='allow_fp32_to_fp16') of declare_model for model 'batches.om' has no effect on "
        in log
    )


def start_one(folder: Path, env: dict[str, str], model: str = ADD_OM, arguments: str = "") -> ServerProcess:
    make_om_servable(folder, "one", ONE_CONFIG, {"add.om": model})
    return ServerProcess(make_script(folder, [f'"one"{arguments}']), env=env)


@pytest.mark.parametrize(
    ("env", "model", "arguments", "messages"),
    [
        (
            {"ASCEND_HOME_PATH": "", "LD_LIBRARY_PATH": "/somewhere/else"},
            ADD_OM,
            "",
            ["libascendcl.so cannot be loaded", "LD_LIBRARY_PATH is '/somewhere/else'", "set_env.sh"],
        ),
        ({}, ADD_OM, ', device_type="CPU"', ["device_type 'CPU' is inconsistent with current running environment"]),
        ({"FAKE_ASCENDCL_DEVICES": "0"}, ADD_OM, "", ["device 0 cannot be used", "error 107001", "devices here: 0"]),
        ({}, "not a model", "", ["aclmdlLoadFromFile() failed with error 100014: EH9999", "add.om"]),
        (
            {"FAKE_ASCENDCL_FAIL": "aclmdlExecute=507011"},
            ADD_OM,
            "",
            ["a trial run with zeros failed: aclmdlExecute() failed with error 507011"],
        ),
        ({"FAKE_ASCENDCL_FAIL": "aclrtMalloc=207001"}, ADD_OM, "", ["aclrtMalloc() failed with error 207001"]),
    ],
)
def test_WhatCannotStartSaysWhy(tmp_path, ascend, env, model, arguments, messages):
    server = start_one(tmp_path, {**ascend, **env}, model, arguments)
    with pytest.raises(RuntimeError) as raised, server:
        pass
    for message in ["Load model failed" if arguments == "" else "add.om is an OM model", *messages]:
        assert message in str(raised.value)


def test_AFailedRunFailsItsInstancesAlone(tmp_path, ascend, make_instances):
    env = {**ascend, "FAKE_ASCENDCL_FAIL": "aclmdlExecute=507011", "FAKE_ASCENDCL_FAIL_AFTER": "1"}
    with start_one(tmp_path, env, arguments=', device_type="ascend"') as server:
        answers = Client(server.grpc_address, "one", "add").infer(make_instances(2))
        errors = [answers] if isinstance(answers, dict) else answers
        for answer in errors:
            assert "aclmdlExecute() failed with error 507011: EH9999: Inner Error!" in answer["error"]
        assert len(server.worker_pids()) == 1
