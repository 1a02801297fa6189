"""What a distributed worker makes of its servable's declaration and of the ranks that come."""

import itertools
from pathlib import Path

import pytest

from mindspore_serving.worker import rank_models, servable_models
from mindspore_serving.worker.main import StartOrder

TABLE = {
    "server_list": [
        {"server_id": "10.0.0.1", "device": [{"device_id": str(i), "rank_id": str(i)} for i in range(2)]},
    ]
}


@pytest.fixture
def config(config):
    """Imports a servable_config.py with the given text as a worker does, and returns what it registered."""
    return lambda text: config("from mindspore_serving.server import distributed, register\n" + text)


def order_of(registration, distributed=None, device_type="CPU"):
    directory = Path(registration.directory)
    return StartOrder(str(directory.parent), directory.name, 1, None, 0, device_type, None, distributed=distributed)


RANKS = {
    "address": "127.0.0.1:6200",
    "rank_table": TABLE,
    "wait_agents_time_in_seconds": 0,
    "rank_timeout_seconds": 10.0,
}


def load_ranks(registration, device_type="CPU"):
    return rank_models.load_rank_model(None, order_of(registration, RANKS, device_type), registration, lambda: False)


def test_a_distributed_servable_is_not_started_by_start_servables(config):
    registration = config("distributed.declare_servable(2, 1)")
    with pytest.raises(RuntimeError, match=r"start it by distributed.start_servable, not by start_servables"):
        servable_models.load_models(None, order_of(registration), registration)


def test_another_servable_is_not_started_by_start_servable(config):
    with pytest.raises(RuntimeError, match=r"declares its model by declare_servable, but .* by start_servables"):
        load_ranks(config("register.declare_servable('a.mindir', 'MindIR')"))
    with pytest.raises(RuntimeError, match=r"There is no model declared in .*: call distributed.declare_servable"):
        load_ranks(config("import os"))


def test_the_rank_table_fits_the_declaration(config):
    with pytest.raises(RuntimeError, match="has 2 ranks, but the servable is declared with rank_size 4"):
        load_ranks(config("distributed.declare_servable(4, 1)"))
    with pytest.raises(RuntimeError, match="With stage_size 2 the rank size should be at least 8"):
        load_ranks(config("distributed.declare_servable(2, 2)"), "Ascend")


@pytest.mark.parametrize(
    ("arguments", "pipeline", "warned"),
    [
        ("2, 2, enable_pipeline_infer=True", True, False),
        ("2, 2", False, False),
        ("2, 1, enable_pipeline_infer=True", True, True),
        ("2, 1", False, False),
    ],
)
def test_the_native_server_is_told_of_the_pipeline(config, monkeypatch, caplog, arguments, pipeline, warned):
    given = []

    class Core:
        @staticmethod
        def RankServer(*_args, **options):
            given.append(options)

    monkeypatch.setattr(rank_models, "load_native", lambda _name: Core)
    registration = config(f"distributed.declare_servable({arguments})")
    order = order_of(registration, RANKS)
    rank_models._start_server(order, rank_models.RankOrder(**RANKS), registration.models[0])
    assert given == [{"pipeline": pipeline}]
    assert [record.getMessage() for record in caplog.records if "enable_pipeline_infer" in record.message] == [
        f"enable_pipeline_infer of servable '{order.servable_name}' has no effect: its model has one stage, which "
        "takes one run at a time"
    ] * warned


class Ranks:
    """Plays the native server of ranks."""

    address = "127.0.0.1:6200"

    def __init__(self, *answers):
        self.answers = list(answers)
        self.progresses = itertools.count(1)
        self.stopped = []

    def wait(self, timeout_s):
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    def progress(self):
        return f"{next(self.progresses)} of 8 ranks are ready"

    def stop(self, reason):
        self.stopped.append(reason)


def test_the_ranks_are_waited_for_and_told_of(capsys):
    rank_models.wait_for_ranks(Ranks("", "", None), 0, lambda: False)
    assert capsys.readouterr().out.splitlines() == [
        "Waiting for agents at 127.0.0.1:6200: 1 of 8 ranks are ready",
        "Waiting for agents at 127.0.0.1:6200: 2 of 8 ranks are ready",
    ]


def test_ranks_that_do_not_come_in_time_are_told():
    with pytest.raises(RuntimeError, match=r"not ready after wait_agents_time_in_seconds \(1e-09 seconds\): 1 of 8"):
        rank_models.wait_for_ranks(Ranks(""), 1e-9, lambda: False)


def test_ranks_that_fail_are_told():
    with pytest.raises(RuntimeError, match="rank 3: Load model failed"):
        rank_models.wait_for_ranks(Ranks("", "rank 3: Load model failed"), 0, lambda: False)


def test_a_stop_ends_the_waiting_and_launchers_are_told():
    ranks = Ranks("")
    with pytest.raises(ConnectionError):
        rank_models.wait_for_ranks(ranks, 0, lambda: True)
    assert ranks.stopped == ["the server has stopped the servable"]


def rank(number, inputs, outputs, batch_sizes=(), way="kernel replay"):
    model = {
        "file": f"/models/{number}/m.mindir",
        "way": way,
        "inputs": [{"name": "x", "dtype": 11, "dims": dims} for dims in inputs],
        "outputs": [{"name": "y", "dtype": 11, "dims": dims} for dims in outputs],
        "batch_sizes": list(batch_sizes),
    }
    return {"rank": number, "host": "10.0.0.1", "models": [model]}


def declaration(config, arguments):
    return config(f"distributed.declare_servable({arguments})").models[0]


def test_the_first_rank_gives_the_inputs_and_the_last_the_outputs(config):
    ranks = [rank(1, [], [[4, 3]], way="backend run"), rank(0, [[4, 96]], [[4, 7]], [1, 4])]
    (model,) = rank_models.describe_subgraphs(ranks, declaration(config, "2, 2"))
    assert [info.dims for info in model.inputs] == [(4, 96)]
    assert [info.dims for info in model.outputs] == [(4, 3)]
    assert (model.batch_size, model.batch_sizes) == (4, [1, 4])
    assert (model.model_file, model.way) == ("m.mindir", "2 ranks, kernel replay and backend run")
    (model,) = rank_models.describe_subgraphs(ranks, declaration(config, "2, 2, enable_pipeline_infer=True"))
    assert model.way == "2 ranks, kernel replay and backend run, stages overlap"


def test_a_model_without_batch_dimension(config):
    ranks = [rank(i, [[4, 96]], [[1]]) for i in range(2)]
    (model,) = rank_models.describe_subgraphs(ranks, declaration(config, "2, 1, False"))
    assert (model.batch_size, model.batch_sizes) == (0, [])


def test_batch_dimensions_are_checked(config):
    with pytest.raises(RuntimeError, match=r"batch size of its inputs is 4, but its outputs on rank 1 are of \[1\]"):
        rank_models.describe_subgraphs([rank(i, [[4, 96]], [[1]], [4]) for i in range(2)], declaration(config, "2, 1"))
    with pytest.raises(RuntimeError, match="with_batch_dim is True, but its inputs have no batch size in common"):
        rank_models.describe_subgraphs([rank(i, [], [[1]]) for i in range(2)], declaration(config, "2, 1"))
