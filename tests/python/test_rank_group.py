"""Models of several ranks: what the ranks do while they load is decided together, and what they compute is right."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
from mindspore_serving.worker import _mindspore, kernel_pool, mindspore_model, way
from mindspore_serving.worker.mindir import parse_mindir
from mindspore_serving.worker.mindspore_model import load_model
from mindspore_serving.worker.rank_group import RankGroup, SingleRank, wait_for_scheduler
from mindspore_serving.worker.session_library import SessionLibrary
from ranks import run_ranks

ms: Any = _mindspore.import_mindspore()
from mindspore import Parameter, Tensor, nn, ops  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")

WORLD = "mccl_world_group"  # what MindSpore calls all ranks of a cluster on CPU; on Ascend: hccl_world_group
WEIGHT = np.random.default_rng(3).normal(size=(8, 6)).astype(np.float32)


class RowParallel(nn.Cell):
    def __init__(self, rank: int, size: int):
        super().__init__()
        self.rows = slice(rank * 8 // size, (rank + 1) * 8 // size)
        self.weight = Parameter(Tensor(WEIGHT[self.rows]), name="weight")
        self.matmul, self.all_reduce = ops.MatMul(), ops.AllReduce(group=WORLD)

    def construct(self, x):
        return self.all_reduce(self.matmul(x[:, self.rows], self.weight))


class ColumnParallel(nn.Cell):
    def __init__(self, rank: int, size: int):
        super().__init__()
        columns = slice(rank * 6 // size, (rank + 1) * 6 // size)
        self.weight = Parameter(Tensor(np.ascontiguousarray(WEIGHT[:, columns].T)), name="weight")
        self.matmul, self.all_gather = ops.MatMul(transpose_b=True), ops.AllGather(group=WORLD)
        self.all_gather.add_prim_attr("rank_size", size)  # there is no cluster here that would say it

    def construct(self, x):
        return self.all_gather(self.matmul(self.weight, x)).transpose(1, 0)


class FirstStage(nn.Cell):
    """Sends x @ WEIGHT on; what it returns itself is the same."""

    def __init__(self):
        super().__init__()
        self.weight = Parameter(Tensor(WEIGHT), name="weight")
        self.matmul, self.send = ops.MatMul(), ops.Broadcast(0, WORLD)

    def construct(self, x):
        return self.send((self.matmul(x, self.weight),))[0]


class LastStage(nn.Cell):
    """Without inputs: receives what stage 0 sends."""

    def __init__(self, rows: int):
        super().__init__()
        self.place = Parameter(Tensor(np.zeros((rows, 6), np.float32)), name="place")
        self.receive = ops.Broadcast(0, WORLD)

    def construct(self):
        return self.receive((self.place + 0.0,))[0]


def export(path: Path, net: Any, *inputs: np.ndarray) -> None:
    ms.export(net, *(Tensor(array) for array in inputs), file_name=str(path), file_format="MINDIR")


@pytest.mark.parametrize(("said", "size", "fits"), [(None, 2, False), (2, 2, True), (2, 4, False), (None, 1, True)])
def test_an_all_gather_for_another_number_of_ranks_is_refused(tmp_path: Path, said: int | None, size: int, fits: bool):
    """Its kernel would write beyond its memory."""
    net = ColumnParallel(0, 2)
    net.all_gather = ops.AllGather(group=WORLD)  # exported without a cluster: of one rank
    if said is not None:
        net.all_gather.add_prim_attr("rank_size", said)
    path = tmp_path / "gather.mindir"
    export(path, net, np.zeros((4, 8), np.float32))
    found = parse_mindir(memoryview(path.read_bytes())).sized_collectives
    assert [(one.operator, one.group, one.rank_size) for one in found] == [("AllGather", WORLD, said or 1)]
    group = object.__new__(RankGroup)  # of a cluster that is not there
    group.size = size
    if fits:
        group.check_collectives(str(path), found)
        return
    ranks = "1 rank," if said is None else f"{said} ranks,"
    message = (
        rf"gather.mindir: its operator .*AllGather.* was exported for {ranks} .* 'mccl_world_group' has {size} here"
    )
    with pytest.raises(RuntimeError, match=message):
        group.check_collectives(str(path), found)
    SingleRank().check_collectives(str(path), found)  # MindSpore itself refuses that


@pytest.mark.parametrize("size", [2])
def test_ranks_load_and_compute_together_in_every_way_and_batch_size(tmp_path: Path, size: int):
    x = np.random.default_rng(5).normal(size=(16, 8)).astype(np.float32)
    expected = x @ WEIGHT
    for rank in range(size):
        export(tmp_path / f"rows_{rank}.mindir", RowParallel(rank, size), x)
        export(tmp_path / f"columns_{rank}.mindir", ColumnParallel(rank, size), x)
        export(tmp_path / f"stages_{rank}.mindir", *((FirstStage(), x) if rank == 0 else (LastStage(16),)))
    cases = {
        "rows": {"with_batch_dim": True, "compile_budget_s": 60},
        "columns": {"with_batch_dim": True, "compile_budget_s": 60},
        "stages": {"with_batch_dim": True},
    }
    for name in cases:
        np.savez(tmp_path / f"{name}.npz", inputs=x, expected=expected)
    script = Path(shutil.copy(Path(__file__).parent / "rank_models.py", tmp_path))
    printed = run_ranks(script, size, str(tmp_path), json.dumps(cases))
    for rank, text in enumerate(printed):
        assert "rows: kernel replay [1, 2, 4, 8, 16]" in text, text
        assert "columns: kernel replay [1, 2, 4, 8, 16]" in text, text
        assert f"stages: kernel replay {[16] if rank == 0 else []}" in text, text
        assert text.endswith("all right\n"), text


class Plain(nn.Cell):
    def construct(self, x):
        return x * 2.0 + 1.0


class OtherRank(SingleRank):
    """The first of two ranks; the second one gives what a test says, from its n-th decision on."""

    size = 2

    def __init__(self, **answers: float) -> None:
        self.answers = {int(name.lstrip("n")): value for name, value in answers.items()}
        self.asked: list[float] = []

    def gather(self, value: float) -> list[float]:
        self.asked.append(value)
        return [value, self.answers.get(len(self.asked), value)]


@pytest.fixture
def plain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(kernel_pool, "_largest_choice", 1)
    export(tmp_path / "plain.mindir", Plain(), np.zeros((4, 2), np.float32))
    return str(tmp_path / "plain.mindir")


def load(path: str, group: SingleRank, **options: Any) -> mindspore_model.LoadedModel:
    return load_model(
        path, with_batch_dim=True, device_type="CPU", device_id=0, group=group, **{"compile_budget_s": 60, **options}
    )


def decisions(path: str) -> list[float]:
    """What a rank says when all goes well: batch size, stateful, one size, large, then for each size ..."""
    group = OtherRank()
    assert load(path, group).batch_sizes == [1, 2, 4]
    return group.asked


def test_a_rank_that_keeps_state_or_has_one_size_decides_for_all(plain: str):
    assert decisions(plain)[:4] == [4, 0, 0, 0]
    assert load(plain, OtherRank(n2=1)).batch_sizes == [4]
    assert load(plain, OtherRank(n3=1)).batch_sizes == [4]


def test_different_batch_sizes_are_refused_with_the_ranks_that_have_them(plain: str):
    with pytest.raises(RuntimeError, match=r"different batch sizes \(rank 0: 4, rank 1: 8\)"):
        load(plain, OtherRank(n1=8))
    assert load(plain, OtherRank(n1=-2)).batch_sizes == [1, 2, 4]  # a rank without inputs has none of its own


def test_a_batch_size_that_another_rank_cannot_have_is_dropped(plain: str, caplog: pytest.LogCaptureFixture):
    # 5: size 1 compiled. 6: is size 2 too much? 7: size 2 compiled.
    assert load(plain, OtherRank(n5=1)).batch_sizes == [2, 4]
    assert "batch size 1 is not used: it does not compile on another rank" in caplog.text
    assert load(plain, OtherRank(n6=1)).batch_sizes == [1, 4]
    assert load(plain, OtherRank(n7=1)).batch_sizes == [1, 4]


def test_a_way_that_another_rank_cannot_go_is_taken_by_none(plain: str, monkeypatch: pytest.MonkeyPatch):
    # 8: the trial ran. 9: there is a library. 10: the session opens. 11, 12, 13: sizes 4, 2, 1 agree.
    assert decisions(plain)[7:13] == [1, 1, 1, 0, 0, 0]
    assert load(plain, OtherRank(n9=0)).way == "python executor"
    assert load(plain, OtherRank(n10=0)).way == "backend run"
    assert load(plain, OtherRank(n11=2)).way == "backend run"
    assert load(plain, OtherRank(n12=1)).batch_sizes == [1, 4]
    # Other values on another rank: all run once more, and see whether the model is one that returns other values.
    assert load(plain, OtherRank(n11=1)).way == "backend run"
    assert load(plain, OtherRank(n11=1, n12=1)).way == "kernel replay"


def test_runs_are_measured_as_often_on_all_ranks(plain: str, monkeypatch: pytest.MonkeyPatch):
    model = load(plain, SingleRank())
    assert model.session_library is not None
    library = SessionLibrary(model.session_library)
    options = {key: value for key, value in model.session_options.items() if key != "kernel_threads"}
    inputs = [np.zeros((4, 2), np.float32)]

    def measured(**answers: float) -> tuple[int, int]:
        group = OtherRank(**answers)
        monkeypatch.setattr(kernel_pool, "_largest_choice", 1)
        threads = kernel_pool.choose_kernel_threads(library, options, inputs, 2, group=group)
        return threads, len(group.asked)

    assert measured() == (1, 1 + 3 + 1)  # too short on both
    assert measured(n2=1) == (1, 1 + 1 + 1)  # the other rank's time for measuring was up
    # It takes long on the other rank: both try two threads, and look at the slower one.
    assert measured(n5=1.0, n46=1.0) == (1, 5 + 40 + 1)
    assert measured(n5=1.0, n46=0.5) == (2, 5 + 40 + 1)


def test_a_missing_library_of_this_rank_is_said_to_the_others(plain: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(way, "usable_library", lambda: None)
    group = OtherRank()
    assert load(plain, group).way == "python executor"
    assert group.asked[8] == 0


def test_waiting_for_a_scheduler_that_never_listens_names_it():
    from servers import free_port

    port = free_port()
    with pytest.raises(RuntimeError, match=rf"scheduler at 127.0.0.1:{port} does not take connections: .*refused"):
        wait_for_scheduler("127.0.0.1", port, 0.2)
