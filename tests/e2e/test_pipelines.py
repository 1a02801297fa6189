"""Pipelines and Model.call: calls from inside users' functions, from the client's side."""

import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import make_script, make_servable
from servers import ServerProcess

HEAD = """
import numpy as np
from mindspore_serving.server import register

model = register.declare_servable("{model}.mindir", "MindIR", with_batch_dim={with_batch_dim})


def to_float32(x1, x2):
    if (x1 < 0).any():
        raise ValueError("negative numbers are not for us")
    return x1.astype(np.float32), x2.astype(np.float32)


@register.register_method(output_names=["y"])
def add(x1, x2):
    y = register.call_servable(x1, x2)
    return y


@register.register_method(output_names=["y", "total"])
def add_checked(x1, x2):
    x1, x2 = register.call_preprocess(to_float32, x1, x2)
    y = register.call_servable(x1, x2)
    total = register.call_postprocess(np.sum, y)
    return y, total
"""

PIPELINES = """
import time

adder = register.PipelineServable(servable_name="{name}", method="add")
checked = register.PipelineServable("{name}", "add_checked", 1)


@register.register_pipeline(output_names=["y", "rounds"])
def add_until(x1, x2, limit):
    rounds = 0
    while x1.max() < limit:
        x1 = adder.run(x1, x2)
        rounds += 1
    return x1, rounds


@register.register_pipeline(output_names=["y", "total", "kind"])
def branch(x1, x2, how):
    if how == "checked":
        y, total = checked.run(x1, x2)
    else:
        y = adder.run(x1.astype(np.float32), x2.astype(np.float32))
        total = y.sum()
    return y, total, how


@register.register_pipeline(output_names="y")
def many(x, count):
    rows = [(x, np.full_like(x, i)) for i in range(count.item())]
    outputs = adder.run(rows)
    assert isinstance(outputs, list) and all(type(one) is tuple for one in outputs)
    return np.stack([y for (y,) in outputs])


@register.register_pipeline(output_names="y")
def by_model(x1, x2):
    y = model.call(x1, x2)
    pairs = model.call([[y, x2], (y, y)])
    assert isinstance(pairs, tuple) and len(pairs) == 2
    return pairs[0][0] + pairs[1][0]


@register.register_pipeline(output_names=["a", "b"])
def one_too_few(x):
    return x


@register.register_pipeline(output_names="y")
def nothing(x):
    return None


@register.register_pipeline(output_names="y")
def slow(x1, x2):
    for _ in range(1000):
        time.sleep(0.05)
        x1 = adder.run(x1, x2)
    return x1


x = np.ones((2, 2), np.float32)
MISUSES = {{
    "method": lambda: register.PipelineServable("{name}", "no_such").run(x, x),
    "servable": lambda: register.PipelineServable("elsewhere", "add").run(x, x),
    "version": lambda: register.PipelineServable("{name}", "add", 7).run(x, x),
    "no instance": lambda: adder.run([]),
    "count": lambda: adder.run(x),
    "count of one": lambda: adder.run([(x, x), (x,)]),
    "none": lambda: adder.run(x, None),
    "object": lambda: adder.run(x, object()),
    "complex": lambda: adder.run(x, x.astype(complex)),
    "size": lambda: adder.run(x, np.ones((3, 3), np.float32)),
    "dtype": lambda: adder.run([(x, x), (x, x.astype(np.float64))]),
    "stage": lambda: checked.run(-x, x),
    "model nothing": lambda: model.call(),
    "model empty": lambda: model.call([]),
    "model format": lambda: model.call([x, x]),
    "model count": lambda: model.call(x, x, x),
    "model subgraph": lambda: model.call(x, x, subgraph=1),
    "model size": lambda: model.call(x, np.ones(3, np.float32)),
    "model dtype": lambda: model.call(x, np.ones((2, 2), np.int32)),
}}


@register.register_pipeline(output_names="said")
def misuse(what):
    try:
        MISUSES[what]()
    except RuntimeError as error:
        return str(error)
    return "nothing was raised"
"""

# Functions of ordinary methods that call in turn, one of them from a thread pool.
CALLERS = """
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(3)
adder = register.PipelineServable("{name}", "add_checked")


def twice(x1, x2):
    y = model.call(x1, x2)
    x1 += 1000  # the caller's own values stay its own
    return model.call(y, x2)


def in_threads(instances):
    yield from pool.map(lambda instance: adder.run(*instance)[0], instances)


@register.register_method(output_names=["y", "x1"])
def add_thrice(x1, x2):
    y = register.call_preprocess(twice, x1, x2)
    y = register.call_servable(y, x2)
    return y, x1


@register.register_method(output_names=["y"])
def add_twice_in_threads(x1, x2):
    y = register.call_preprocess_pipeline(in_threads, x1, x2)
    y = register.call_servable(y, x2)
    return y
"""

SERVABLES = {"plain": ("add", False), "batched": ("addb", True)}
servables = pytest.mark.parametrize("name", sorted(SERVABLES))


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory, models):
    """A server with pipelines over a model without and with a batch dimension, and one with methods that call."""
    folder = tmp_path_factory.mktemp("pipelines")
    for name, (model, with_batch_dim) in SERVABLES.items():
        config = (HEAD + PIPELINES).format(name=name, model=model, with_batch_dim=with_batch_dim)
        make_servable(folder, name, config, {1: models / f"{model}.mindir"})
    config = (HEAD + CALLERS).format(name="callers", model="addb", with_batch_dim=True)
    make_servable(folder, "callers", config, {1: models / "addb.mindir"})
    with ServerProcess(make_script(folder, ['"plain"', '"batched"', '"callers"'])) as server:
        yield server


def ask(server, servable, method, *instances, **values):
    answers = Client(server.grpc_address, servable, method).infer(list(instances) or values)
    return answers if instances or isinstance(answers, dict) else answers[0]


def floats(*values):
    return np.array(values, np.float32).reshape(2, 2)


@servables
def test_LoopsRunAsOftenAsTheValuesSay(pipelines, name):
    instances = [
        {"x1": np.full((2, 2), i, np.float32), "x2": np.ones((2, 2), np.float32), "limit": np.float32(5)}
        for i in range(8)
    ]
    answers = ask(pipelines, name, "add_until", *instances)
    assert [int(answer["rounds"]) for answer in answers] == [5, 4, 3, 2, 1, 0, 0, 0]
    assert [answer["y"].max() for answer in answers] == [5, 5, 5, 5, 5, 5, 6, 7]


@servables
@pytest.mark.parametrize("how", ["checked", "plain"])
def test_BranchesAndSeveralOutputs(pipelines, name, how):
    values = {"x1": np.arange(4).reshape(2, 2), "x2": np.ones((2, 2), int), "how": how}
    answer = ask(pipelines, name, "branch", **values)
    np.testing.assert_array_equal(answer["y"], floats(1, 2, 3, 4))
    assert answer["total"] == 10 and answer["kind"] == how


@servables
@pytest.mark.parametrize("count", [1, 4, 11])
def test_AListIsABatchOfInstances(pipelines, name, count):
    answer = ask(pipelines, name, "many", x=floats(1, 2, 3, 4), count=count)
    expected = np.stack([floats(1, 2, 3, 4) + i for i in range(count)])
    np.testing.assert_array_equal(answer["y"], expected)


@servables
def test_ModelCall_OneInstanceAndSeveral(pipelines, name):
    x1, x2 = floats(1, 2, 3, 4), floats(10, 10, 10, 10)
    answer = ask(pipelines, name, "by_model", x1=x1, x2=x2)
    np.testing.assert_array_equal(answer["y"], 3 * (x1 + x2) + x2)


@servables
def test_MethodsAreNotForClientsOnceThereArePipelines(pipelines, name):
    x = floats(1, 2, 3, 4)
    for method in ("add", "add_checked", "@0/0"):
        assert "method is not available" in ask(pipelines, name, method, x1=x, x2=x)["error"]


@servables
def test_FailingInstance_FailsAlone_WithTheUsersLine(pipelines, name):
    good = {"x1": floats(1, 2, 3, 4), "x2": floats(1, 1, 1, 1), "how": "checked"}
    bad = {**good, "x1": -floats(1, 2, 3, 4)}
    answers = ask(pipelines, name, "branch", good, bad, good)
    np.testing.assert_array_equal(answers[2]["y"], floats(2, 3, 4, 5))
    error = answers[1]["error"]
    assert error.startswith("Pipeline Failed: RuntimeError: ")
    assert "Preprocess Failed: ValueError: negative numbers are not for us" in error
    assert f"{name}/servable_config.py:" in error and "function branch" in error


@servables
def test_WrongCountAndNone_FailTheInstanceAndNotTheWorker(pipelines, name):
    workers = pipelines.worker_pids()
    x = floats(1, 2, 3, 4)
    error = ask(pipelines, name, "one_too_few", x=x)["error"]
    assert error.startswith("Pipeline Failed: it returned 1 output")
    error = ask(pipelines, name, "nothing", x=x)["error"]
    assert error.startswith("Pipeline Failed: an output is None")
    assert ask(pipelines, name, "many", x=x, count=1)["y"].shape == (1, 2, 2)
    assert pipelines.worker_pids() == workers


@servables
@pytest.mark.parametrize(
    "what,text",
    [
        ("method", "method 'no_such' is not available"),
        ("servable", "servable 'elsewhere' is not available in this worker"),
        ("version", "version 7 is not available in this worker"),
        ("no instance", "at least one instance"),
        ("count", "needs 2 input(s), but 1 are given"),
        ("count of one", "Instance 1 of the call of method 'add'"),
        ("none", "Input 1 of the call of method 'add'"),
        ("object", "has dtype object"),
        ("complex", "has dtype complex128"),
        ("size", "Given model input 1 size 36 not match the size 16 defined in model"),
        ("dtype", "Instance 1 of the call of method 'add'"),
        ("stage", "Preprocess Failed: ValueError: negative"),
        ("model nothing", "but none was given"),
        ("model empty", "at least one instance"),
        ("model format", "should be a list or tuple of the model's inputs"),
        ("model count", "needs 2 input(s), but 3 are given"),
        ("model subgraph", "Parameter 'subgraph' should be less than 1"),
        ("model size", "Given model input 1 size 12 not match"),
        ("model dtype", "data type kMSI_Int32 not match the data type kMSI_Float32"),
    ],
)
def test_Misuse_IsARuntimeErrorThatSaysWhat(pipelines, name, what, text):
    answer = ask(pipelines, name, "misuse", what=what)
    assert text in answer["said"], answer


@servables
def test_ManyClientsAtOnce(pipelines, name):
    def one(i):
        x1, x2 = np.full((2, 2), i, np.float32), np.ones((2, 2), np.float32)
        return ask(pipelines, name, "add_until", x1=x1, x2=x2, limit=np.float32(20))

    with ThreadPoolExecutor(8) as pool:
        for i, answer in enumerate(pool.map(one, range(40))):
            assert answer["rounds"] == max(0, 20 - i) and answer["y"].max() == max(20, i)


def test_ADeadlineEndsAPipelineBetweenItsCalls(pipelines):
    import grpc

    from mindspore_serving.proto import ms_service_pb2, ms_service_pb2_grpc

    x = floats(0, 0, 0, 0)
    tensor = ms_service_pb2.Tensor(
        shape=ms_service_pb2.TensorShape(dims=[2, 2]), dtype=ms_service_pb2.MS_FLOAT32, data=x.tobytes()
    )
    request = ms_service_pb2.PredictRequest(
        servable_spec=ms_service_pb2.ServableSpec(name="plain", method_name="slow"),
        instances=[ms_service_pb2.Instance(items={"x1": tensor, "x2": tensor})],
    )
    with grpc.insecure_channel(pipelines.grpc_address) as channel:
        with pytest.raises(grpc.RpcError) as raised:
            ms_service_pb2_grpc.MSServiceStub(channel).Predict(request, timeout=0.3)
    assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    # The worker is free long before the pipeline's 50 s are over.
    begin = time.monotonic()
    assert ask(pipelines, "plain", "many", x=x, count=1)["y"].shape == (1, 2, 2)
    assert time.monotonic() - begin < 25


def test_StagesOfMethodsMayCall_AndTheirMethodsStayPublic(pipelines):
    x1, x2 = floats(1, 2, 3, 4), floats(10, 20, 30, 40)
    answers = ask(pipelines, "callers", "add_thrice", *[{"x1": x1 + i, "x2": x2} for i in range(9)])
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["y"], x1 + i + 3 * x2)
        np.testing.assert_array_equal(answer["x1"], x1 + i + 1000)
    np.testing.assert_array_equal(ask(pipelines, "callers", "add", x1=x1, x2=x2)["y"], x1 + x2)


def test_AStageMayCallFromAThreadPool(pipelines):
    x1, x2 = floats(1, 2, 3, 4), floats(10, 20, 30, 40)
    answers = ask(pipelines, "callers", "add_twice_in_threads", *[{"x1": x1 + i, "x2": x2} for i in range(20)])
    for i, answer in enumerate(answers):
        np.testing.assert_array_equal(answer["y"], x1 + i + 2 * x2)
