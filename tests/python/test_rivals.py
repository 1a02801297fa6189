"""The harness that measures beside other servers: wire forms, protocols, plan, analysis and page."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from harness.load import LoadError, Shape
from mindspore_serving.proto import ms_service_pb2 as pb
from rivals import analysis, goals, install, loads, networks, onnx_file, plan, plots, processes, registry, report, wire
from rivals import results as raw
from rivals.__main__ import main
from rivals.loads import Level
from rivals.measure import Surroundings, check, started
from rivals.protocols import Echo, JsonHttp, MsGrpc, MsRest, RawHttp, V2Binary, V2Grpc, V2Json, without_prefix
from rivals.rival import Rival

from rival_work import functions  # isort: skip  (rivals.protocols has made it importable)
from rival_work.works import WORKS, random_inputs  # isort: skip

ROOT = Path(__file__).resolve().parents[2]
PRINTED = {
    "sent": 120, "sent_rate": 60.0, "goodput": 50.0, "right": 100, "unanswered": 3, "server_cpu_s": 1.0,
    "generator_cpu_s": 0.5, "errors": {"http 503": 17}, "accepted": 100, "refused": 17,
    **{f"accepted_{name}_us": value for name, value in
       (("p50", 10), ("p90", 20), ("p99", 30), ("p999", 40), ("max", 50))},
}  # fmt: skip


# ------------------------------------------------------------------------------------------------- wire and protocols
@pytest.mark.parametrize("value", [0, 1, 127, 128, 300, 2**32, 2**64 - 1])
def test_varints_come_back(value: int) -> None:
    assert wire.read_varint(memoryview(wire.varint(value)), 0) == (value, len(wire.varint(value)))


def test_wire_reads_what_protobuf_writes() -> None:
    message = pb.TensorShape(dims=[1, 300, 5]).SerializeToString()
    ((number, packed),) = wire.fields(message)
    assert (number, wire.unpacked(packed)) == (1, [1, 300, 5])


def test_protobuf_reads_what_wire_writes() -> None:
    spec = wire.text(1, "add") + wire.text(2, "predict") + wire.number(3, 700)
    assert pb.ServableSpec.FromString(spec) == pb.ServableSpec(name="add", method_name="predict", version_number=700)


def test_field_longer_than_its_message_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer"):
        list(wire.fields(b"\x0a\x05ab"))


@pytest.mark.parametrize("work", [name for name in WORKS if name not in ("big", "resnet50")])
@pytest.mark.parametrize("instances", [1, 16])
def test_raw_and_json_bodies_carry_the_inputs(work: str, instances: int) -> None:
    chosen = WORKS[work]
    arrays = random_inputs(chosen, instances)
    turned = chosen._replace(outputs=chosen.inputs)  # what is sent, read as an answer
    for protocol in (RawHttp("/x"), JsonHttp("/x")):
        check(protocol.decode(turned, protocol.encode(chosen, arrays).body), arrays)


def test_msservice_request_names_servable_and_method() -> None:
    request = MsGrpc().encode(WORKS["add"], random_inputs(WORKS["add"], 2))
    message = pb.PredictRequest.FromString(without_prefix(request.body))
    assert (message.servable_spec.name, message.servable_spec.method_name) == ("add", "predict")
    assert len(message.instances) == 2
    rest = MsRest().encode(WORKS["add"], random_inputs(WORKS["add"], 2))
    assert (rest.path, len(json.loads(rest.body)["instances"])) == ("/model/add:predict", 2)


def test_v2_grpc_answer_is_read_by_name() -> None:
    work = WORKS["prepost"]
    digit, share = np.array([[3]], np.int64), np.array([[0.5]], np.float32)

    def head(name: str, kind: str, array: np.ndarray) -> bytes:
        return wire.text(5, wire.text(1, name) + wire.text(2, kind) + wire.packed(3, array.shape))

    message = head("share", "FP32", share) + head("digit", "INT64", digit)
    message += wire.text(6, share.tobytes()) + wire.text(6, digit.tobytes())
    check(V2Grpc().decode(work, b"\0" + len(message).to_bytes(4, "big") + message), [digit, share])


def test_v2_http_answers_are_read_with_and_without_binary_data() -> None:
    work, y = WORKS["addb"], np.arange(8, dtype=np.float32).reshape(2, 2, 2)
    output = {"name": "y", "datatype": "FP32", "shape": [2, 2, 2]}
    plain = json.dumps({"outputs": [{**output, "data": y.ravel().tolist()}]}).encode()
    check(V2Json().decode(work, plain), [y])
    head = json.dumps({"outputs": [{**output, "parameters": {"binary_data_size": y.nbytes}}]}).encode()
    check(V2Binary().decode(work, head + y.tobytes()), [y])


def test_echo_sends_what_the_other_protocol_sends() -> None:
    work, arrays = WORKS["add"], random_inputs(WORKS["add"], 1)
    assert Echo(MsRest()).encode(work, arrays).body == MsRest().encode(work, arrays).body


@pytest.mark.parametrize(
    ("answer", "what"),
    [([], "0 outputs"), ([np.zeros((1, 3))], "shape"), ([np.array([[1.0, 2.1]])], "wrong answer")],
)
def test_wrong_answers_are_seen(answer: list[np.ndarray], what: str) -> None:
    with pytest.raises(LoadError, match=what):
        check(answer, [np.array([[1.0, 2.0]])])


def test_requests_that_run_together_get_their_own_rows() -> None:
    first, second = [np.ones((1, 2)), np.ones((1, 2))], [np.full((3, 2), 5.0), np.ones((3, 2))]
    (one,), (three,) = functions.run_together(lambda arrays: functions.add(*arrays), [first, second])
    assert one.tolist() == [[2, 2]]
    assert three.tolist() == [[6, 6]] * 3


def test_onnx_file_has_every_layer_and_weight() -> None:
    lenet = next(network for network in networks.all_networks() if network.name == "lenet")
    model = dict(wire.fields(onnx_file.encode(lenet)))
    nodes = [dict(wire.fields(value)) for number, value in wire.fields(model[7]) if number == 1]
    kinds = [bytes(node[4]).decode() for node in nodes]
    assert kinds == ["Conv", "Relu", "MaxPool"] * 2 + ["Flatten", "Gemm", "Relu", "Gemm", "Identity"]
    raw = sum(len(dict(wire.fields(value))[9]) for number, value in wire.fields(model[7]) if number == 5)
    assert raw == 4 * (16 * 9 + 16 + 32 * 16 * 9 + 32 + 128 * 64 + 64 + 640 + 10)


# ------------------------------------------------------------------------------------------------- figures of a run
def test_figures_of_a_run() -> None:
    measured = loads.parse(json.dumps(PRINTED), seconds=2)
    assert (measured.requests_s, measured.p99_us, measured.max_us) == (50, 30, 50)
    assert measured.cpu_us == pytest.approx(1.0 / 100 * 1e6)  # of right answers alone
    assert (measured.busy, measured.generator_busy) == (0.5, 0.25)
    assert (measured.wrong, measured.unanswered) == (17, 3)


def test_generator_polls_where_one_request_is_in_flight_and_is_then_never_called_full() -> None:
    levels = [Level(Shape(1)), Level(Shape(1, 16)), Level(Shape(4)), Level(Shape(1), 20)]
    assert [loads.polls(level) for level in levels] == [True, False, False, False]
    assert loads.parse(json.dumps(PRINTED), seconds=2, polling=True).generator_busy == 0


def test_run_without_a_right_answer_is_an_error() -> None:
    with pytest.raises(LoadError, match="http 503"):
        loads.parse(json.dumps({**PRINTED, "right": 0}), seconds=2)


def test_samples_are_cut_at_their_lengths(tmp_path: Path) -> None:
    file = tmp_path / "samples"
    file.write_bytes(b"\x02\0\0\0ab\0\0\0\0\x01\0\0\0c")
    assert loads.read_samples(file) == [b"ab", b"", b"c"]


# ------------------------------------------------------------------------------------------------- plan
def test_streams_are_for_grpc_alone() -> None:
    for job in plan.jobs(registry.all_rivals(), plan.CASES, quick=False):
        for part in job.parts:
            if not job.rival.protocols[part.protocol].grpc:
                assert all(level.shape.streams == 1 for level in part.levels)


def test_each_case_measures_the_level_that_summaries_show() -> None:
    for case in plan.CASES:
        assert case.main in case.full
        assert case.main in case.quick


def test_quick_run_of_what_is_installed_fits_its_budget_with_rivals_of_eight_seconds() -> None:
    rivals = [rival for rival in registry.all_rivals() if rival.own_interpreter]
    quick = plan.jobs(rivals, plan.CASES, quick=True)
    assert (
        0
        < sum(job.seconds(1.3) for job in quick)
        < sum(job.seconds(4) for job in plan.jobs(rivals, plan.CASES, quick=False))
    )


def test_every_rival_says_its_settings_and_has_its_packages_pinned() -> None:
    rivals = registry.all_rivals()
    assert len({rival.name for rival in rivals}) == len(rivals)
    for rival in rivals:
        assert rival.settings, rival.name
        if rival.ceiling:
            continue
        lines = (rival.home / "requirements.txt").read_text().splitlines()
        pins = [line for line in lines if line and not line.startswith("#")]
        assert pins and all("==" in line for line in pins), rival.name


def test_version_is_read_with_the_means_of_its_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Newer environments may have no setuptools, and Python 3.7 nothing else to ask."""
    asked = []
    monkeypatch.setattr(install.subprocess, "run", lambda command, **_: asked.append(command[2]) or _Done())
    kserve, old = (next(one for one in registry.all_rivals() if one.name == name) for name in ("kserve", "old"))
    monkeypatch.setattr(install, "read_state", lambda rival: install.State("", rival.pythons[0]))
    assert install.installed_version(kserve) == install.installed_version(old) == "1.2"
    assert "importlib.metadata" in asked[0] and "pkg_resources" in asked[1]


class _Done:
    returncode, stdout = 0, "1.2\n"


def test_python_that_the_machine_lacks_is_an_error() -> None:
    with pytest.raises(install.InstallError, match=r"no Python 2\.1"):
        install.find_python(("2.1",))


# ------------------------------------------------------------------------------------------------- processes
_PARENT = """
import signal, subprocess, sys, time
subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
if "stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("up", flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("words", [[], ["stubborn"]])
@pytest.mark.parametrize("ends_slowly", [False, True])
def test_nothing_that_a_server_started_outlives_it(tmp_path: Path, words: list[str], ends_slowly: bool) -> None:
    log = tmp_path / "log"
    command = [sys.executable, "-c", _PARENT, *words]
    with processes.MarkedServer(command, {}, tmp_path, log, ends_slowly=ends_slowly) as server:
        deadline = time.monotonic() + 60
        while "up" not in server.log_end() and time.monotonic() < deadline:
            time.sleep(0.05)
        pids = server.pids()
        assert len(pids) == 2  # the server and what left its session
        processes.settle(pids)
        assert processes.memory_mb(pids) > 1
    assert server.pids() == []
    assert not any(processes.alive(pid) for pid in pids)


@pytest.mark.parametrize("fails", [False, True])
def test_folders_that_a_server_leaves_outside_of_its_own_are_removed(tmp_path: Path, fails: bool) -> None:
    folder = tmp_path / "left"
    program = f"import os, time; os.makedirs({str(folder / 'deep')!r}); print('up', flush=True); time.sleep(600)"
    rival = Rival(
        "one", "One", "one", "one", {"raw": RawHttp("/raw")}, (),
        lambda start: [str(start.python), "-c", program], leaves=lambda start: [folder],
    )  # fmt: skip
    where = Surroundings(tmp_path, tmp_path, tmp_path, lambda rival: Path(sys.executable), lambda rival: [])
    job = plan.Job(rival, "add", [plan.Part(plan.CASES[0], "raw", (plan.C1,))])
    with suppress(LoadError), started(job, where) as (server, _start):
        deadline = time.monotonic() + 60
        while "up" not in server.log_end() and time.monotonic() < deadline:
            time.sleep(0.05)
        assert folder.is_dir()
        if fails:
            raise LoadError("no answer")
    assert not folder.exists()


# ------------------------------------------------------------------------------------------------- analysis and page
def _row(
    rival: str, protocol: str, level: Level, requests_s: float, cpu_us: float, **other: object
) -> dict[str, object]:
    measured = {
        "requests_s": requests_s, "cpu_us": cpu_us, "p50_us": 100.0, "p90_us": 150.0, "p99_us": 200.0, "p999_us": 300.0,
        "max_us": 400.0, "busy": 1.0, "generator_busy": 0.5, "sent": 1, "wrong": 0, "unanswered": 0, "errors": {},
        **other,
    }  # fmt: skip
    return {
        "rival": rival, "case": "addb", "protocol": protocol, "level": str(level),
        "connections": level.shape.connections,
        "streams": level.shape.streams, "rate": level.rate, "measured": measured, "memory_mb": 50.0, "checked": 16,
        "error": "",
    }  # fmt: skip


def _run(*rows: dict[str, object], **other: object) -> dict[str, object]:
    return {
        "date": "2026-01-01",
        "machine": {"processor": "P", "cores": 2, "memory_gb": 8, "kernel": "6", "system": "Linux",
        "load_average_before": 0.1}, "settings": {"seconds": 1.0, "quick": True, "minutes": 1.0},
        "versions": {"ours": {"package": "mindspore-serving 3", "python": "3.11"}},
        "ceilings": {"sessions": {"addb": 8000.0}, "functions": {"addb": 50000.0}, "memcpy_mb_s": 9000.0, "errors": {}},
        "cases": list(dict.fromkeys(row["case"] for row in rows)),
        "rows": list(rows),
        **other,
    }  # fmt: skip


def _results(*rows: dict[str, object], **other: object) -> raw.Results:
    return raw.Results([_run(*rows, **other)])


AT_64 = Level(Shape(64))


def test_server_that_answers_nothing_in_time_is_ahead_in_no_time() -> None:
    level, none = Level(Shape(64), 500), dict.fromkeys(("p50_us", "p90_us", "p99_us", "p999_us", "max_us"), 0.0)
    results = _results(_row("ours", "grpc", level, 500, 10), _row("mosec", "raw", level, 20, 60, **none))
    assert analysis.losses(results) == []
    assert analysis.best(results.rows, None, "addb", str(level), "p99_us") is None
    results = _results(_row("ours", "grpc", level, 500, 10), _row("mosec", "raw", level, 499, 60, p99_us=100.0))
    assert [(loss.rival, loss.what) for loss in analysis.losses(results)] == [("mosec", "p99_us")]


def test_ceiling_is_the_lower_of_echo_and_model() -> None:
    ours, other = _row("ours", "grpc", AT_64, 4000, 10), _row("mosec", "raw", AT_64, 1000, 60)
    results = _results(
        ours, other, _row("echo-grpc", "grpc", AT_64, 20000, 5), _row("echo-rest", "rest", AT_64, 30000, 5)
    )
    assert analysis.ceiling(results, ours, "addb", 1) == (8000, "model")
    assert analysis.ceiling(results, ours, "addb", 16) == (500, "model")
    assert analysis.ceiling(results, other, "addb", 1) == (30000, "echo")
    own_kernels = _row("old", "grpc", AT_64, 1000, 60)
    assert analysis.ceiling(_results(own_kernels), own_kernels, "addb", 1) is None


def test_losses_name_the_best_rival_against_the_best_of_ours() -> None:
    results = _results(
        _row("ours", "grpc", AT_64, 4000, 10), _row("ours-functions", "grpc", AT_64, 4500, 12),
        _row("mosec", "raw", AT_64, 9000, 11), _row("mosec", "json", AT_64, 5000, 8),
        _row("echo-grpc", "grpc", AT_64, 99000, 1),
    )  # fmt: skip
    found = {loss.what: (loss.protocol, loss.theirs, loss.ours) for loss in analysis.losses(results)}
    assert found == {"requests_s": ("raw", 9000, 4500), "cpu_us": ("json", 8, 10)}


def test_what_two_runs_of_one_server_differ_by_is_no_loss() -> None:
    results = _results(_row("ours", "grpc", AT_64, 1000, 10), _row("mosec", "raw", AT_64, 1020, 9.9))
    assert analysis.losses(results) == []


def test_latencies_count_where_the_load_is_the_same() -> None:
    level = Level(Shape(64), 500)
    slow = _row("ours", "grpc", level, 500, 10, p99_us=900.0)
    assert [loss.what for loss in analysis.losses(_results(slow, _row("mosec", "raw", level, 500, 60)))] == ["p99_us"]


def test_open_loop_that_was_not_held_is_seen() -> None:
    level = Level(Shape(64), 500)
    assert analysis.holds_rate(_row("ours", "grpc", level, 499, 10))
    assert not analysis.holds_rate(_row("ours", "grpc", level, 480, 10))
    assert not analysis.holds_rate(_row("ours", "grpc", level, 500, 10, unanswered=2))


def test_page_shows_results_failures_and_notes(tmp_path: Path) -> None:
    failed = {
        **_row("mosec", "json", AT_64, 0, 0),
        "measured": None,
        "error": "the server ended with 1:\nImportError: x",
    }
    busy = _row("mosec", "raw", AT_64, 1000, 60, wrong=3, errors={"http 503": 3}, generator_busy=0.95)
    results = _results(_row("ours", "grpc", AT_64, 4000, 10), busy, failed, _row("echo-grpc", "grpc", AT_64, 9000, 5))
    page = report.write(results, tmp_path).read_text()
    assert "4.0 x" in page and "6.0 x less" in page
    assert "50% (model)" in page
    assert "refused: 3 x http 503" in page and "the load generator was full" in page
    assert "ImportError: x" in page
    assert "In no row is a rival ahead" in page
    assert raw.read(tmp_path / "benchmarks" / "results.json") == results
    for picture in re.findall(r"\((benchmarks/[^)]*\.svg)\)", page):
        assert ElementTree.parse(tmp_path / picture).getroot().tag.endswith("svg")


# ------------------------------------------------------------------------------------------------- runs in parts
def _case(name: str, requests_s: float, error: str = "") -> dict[str, object]:
    row = {**_row("ours", "grpc", AT_64, requests_s, 10), "case": name}
    return {**row, "measured": None, "error": error} if error else row


def _rates(results: raw.Results) -> dict[str, float]:
    return {row["case"]: row["measured"]["requests_s"] for row in results.rows if row["measured"]}


def test_of_a_case_the_last_run_counts_with_its_own_date_and_ceilings() -> None:
    first = _results(_case("addb", 1), _case("mlp", 2))
    later = _results(_case("mlp", 3), _case("big", 4), date="2026-02-02")
    both = raw.merged([first, later])
    assert _rates(both) == {"addb": 1, "mlp": 3, "big": 4}
    assert (both.run_of("addb")["date"], both.run_of("mlp")["date"]) == ("2026-01-01", "2026-02-02")
    assert [run["cases"] for run in both.runs] == [["addb"], ["mlp", "big"]]
    assert raw.merged([first, _results(_case("addb", 5), _case("mlp", 6))]).runs[0]["cases"] == ["addb", "mlp"]


def test_case_that_was_cut_off_does_not_replace_one_that_was_not() -> None:
    whole, cut = _results(_case("addb", 1)), _results(_case("addb", 0, raw.TIME_WAS_UP))
    assert _rates(raw.merged([whole, cut])) == _rates(raw.merged([cut, whole])) == {"addb": 1}
    broken = _results(_case("addb", 0, "the server ended with 1"))  # that is a result
    assert _rates(raw.merged([whole, broken])) == {}


def test_resumed_run_leaves_out_what_was_measured_with_the_same_settings() -> None:
    results = _results(_case("addb", 1), _case("mlp", 0, raw.TIME_WAS_UP))
    assert raw.measured_so(results, {"seconds": 1.0, "quick": True, "minutes": 9}) == ["addb"]
    assert raw.measured_so(results, {"seconds": 3.0, "quick": True}) == []


def test_one_page_is_made_of_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = [tmp_path / "a.json", tmp_path / "b.json"]
    raw.write(_results(_case("addb", 1111)), files[0])
    raw.write(_results(_case("mlp", 2222), date="2026-02-02"), files[1])
    monkeypatch.setattr("sys.argv", ["rivals", "--render", *map(str, files), "--output", str(tmp_path / "docs")])
    assert main() == 0
    page = (tmp_path / "docs" / "benchmarks.md").read_text()
    assert "1,111" in page and "2,222" in page
    assert "Measured: 2026-01-01" in page and "Measured: 2026-02-02" in page
    assert raw.read(tmp_path / "docs" / "benchmarks" / "results.json").cases == ["addb", "mlp"]


def test_stored_page_is_what_its_results_make(tmp_path: Path) -> None:
    docs = ROOT / "docs"
    report.write(raw.read(docs / "benchmarks" / report.RAW_NAME), tmp_path)
    made = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*") if path.is_file()}
    wrong = [str(name) for name, text in made.items() if (docs / name).read_text() != text]
    assert not wrong, "make them again: ./dev bench --rivals --render docs/benchmarks/results.json"
    assert {path.name for path in (docs / "benchmarks").glob("*.svg")} == {
        path.name for path in made if path.suffix == ".svg"
    }


# ------------------------------------------------------------------------------------------------- goals
def _judged(*rows: dict[str, object], **other: object) -> dict[tuple[str, str], tuple[str, bool]]:
    return {(one.what, one.wanted): (one.got, one.met) for one in goals.judged(_results(*rows, **other))}


def test_goals_that_need_other_rows_are_left_out() -> None:
    none = {"sessions": {}, "functions": {}}
    got = _judged(_row("ours", "grpc", AT_64, 4000, 26), ceilings=none)
    assert got == {
        ("addb, gRPC 64x1", "≤ 25 µs CPU a request"): ("26.0 µs", False),
        ("all cases, levels and figures", "a rival ahead in none"): ("ahead in 0", True),
    }


def test_goals_compare_with_echo_old_package_and_best_rival() -> None:
    streams = plan.STREAMS
    got = _judged(
        _row("echo-grpc", "grpc", AT_64, 10_000, 1), _row("ours", "grpc", AT_64, 6_000, 10),
        _row("ours", "rest", AT_64, 4_400, 9), _row("mosec", "raw", AT_64, 2_000, 23),
        _row("ours", "grpc", streams, 8_000, 5), _row("old", "grpc", streams, 1_000, 50),
        _row("triton", "grpc", streams, 1_700, 50),
    )  # fmt: skip
    assert got["addb, gRPC 64x1", "≥ 60 % of the bare echo"] == ("60%", True)
    assert got["addb, ours, REST 64x1", "≥ 75 % of gRPC"] == ("73%", False)
    assert got["addb, gRPC 8x16", "≥ 8 x the old package"] == ("8.0 x", True)
    assert got["addb, gRPC 8x16", "≥ 5 x the best rival"] == ("4.7 x", False)
    assert got["addb, 64x1: CPU a request", "≥ 2.5 x less than any rival"] == ("2.6 x", True)


def test_goals_of_models_take_their_own_time() -> None:
    level = plan.C1
    alone = {**_row("ours", "grpc", level, 10, 100, p50_us=1070.0), "case": "resnet50"}
    main = {**_row("ours", "grpc", plan.C4, 9.6, 100), "case": "resnet50"}
    ceilings = {"sessions": {"resnet50": 10.0}, "functions": {}, "one_row_us": {"resnet50": 1000.0}}
    got = _judged(alone, main, ceilings=ceilings)
    assert got["resnet50, 4x1", "≥ 95 % of the bare session"] == ("96%", True)
    assert got["resnet50, gRPC, one in flight", "p50 ≤ the model's own time + 60 µs"] == ("1,000 +70 µs", False)


def test_longest_bar_is_the_largest_value() -> None:
    drawn = ElementTree.fromstring(plots.bars("a < b", [plots.Bar("x & y", 50), plots.Bar("z", 100, "ours")]))
    widths = [float(rect.get("width", 0)) for rect in drawn.findall("{*}rect")[1:]]
    assert widths[1] == 2 * widths[0]
    logarithmic = ElementTree.fromstring(plots.bars("a", [plots.Bar("x", 10), plots.Bar("z", 100)], logarithmic=True))
    widths = [float(rect.get("width", 0)) for rect in logarithmic.findall("{*}rect")[1:]]
    assert widths[1] == 2 * widths[0]
    assert "x & y" in [text.text for text in drawn.findall("{*}text")]


def test_a_run_sees_loopback_alone_or_says_why_not() -> None:
    program = """
import socket
from rivals.loopback import keep_to_loopback

reason = keep_to_loopback()
print(reason or [name for _, name in socket.if_nameindex()])
listener = socket.create_server(("127.0.0.1", 0))
socket.create_connection(listener.getsockname(), timeout=10).close()
"""
    said = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(ROOT / "benchmarks")},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert said.returncode == 0, said.stderr
    assert said.stdout.strip() in ("['lo']", "Operation not permitted")
