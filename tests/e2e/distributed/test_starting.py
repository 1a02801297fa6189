"""How distributed servables start, and what is said when they cannot."""

import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mindspore_serving.client import Client
from rank_servable import RankServable, is_alive, wait_until
from servers import ServerProcess

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]


def ask_one(servable: RankServable) -> np.ndarray:
    (reply,) = Client(servable.server.grpc_address, "ranks", "predict").infer([{"x": np.ones(8, np.float32)}])
    return np.asarray(reply["y"])


def end_of(process: ServerProcess, timeout: float = 240) -> str:
    """What a script that fails has printed."""
    assert process.wait_exit(timeout) == 1, process.log
    return process.log


def test_NoAgentsInTime_EndsTheStartWithThatReason(make_servable: Make):
    servable = make_servable(start={"wait_agents_time_in_seconds": 2})
    servable.start_server()
    text = end_of(servable.server)
    assert "not ready after wait_agents_time_in_seconds (2 seconds)" in text
    assert "0, 1" in text  # the ranks that nobody has claimed
    assert servable.pids() == []


def test_ALauncherForRanksThatAnotherHolds_IsRefused_AndDoesNotDisturb(make_servable: Make, parts: Parts):
    servable = make_servable()
    servable.start_server()
    servable.start_launcher(parts("rows2"))
    servable.wait_ready()
    before = servable.agents()
    second = servable.start_launcher(parts("rows2"), name="second")
    assert "refuses the agents" in end_of(second)
    servable.launchers.remove(second)
    assert servable.agents() == before
    ask_one(servable)
    servable.stop()


def test_AFileTooFewOrUnreadable_EndsTheLauncherAlone(make_servable: Make, parts: Parts):
    servable = make_servable()
    servable.start_server()
    few = servable.start_launcher(parts("rows2")[:1], name="few")
    text = end_of(few)
    assert "model_files" in text and "RuntimeError" in text
    missing = servable.start_launcher(["nowhere.mindir"] * 2, name="missing")
    assert "nowhere.mindir" in end_of(missing)
    servable.launchers.clear()
    servable.start_launcher(parts("rows2"))
    servable.wait_ready()
    ask_one(servable)
    servable.stop()


def test_AModelFileThatCannotBeLoaded_EndsBothScripts_WithTheRanksNumber(make_servable: Make, parts: Parts):
    servable = make_servable()
    broken = servable.folder / "broken.mindir"
    broken.write_bytes(b"this is no model")
    servable.start_server()
    launcher = servable.start_launcher([parts("rows2")[0], broken])
    for process in (servable.server, launcher):
        text = end_of(process)
        assert "rank 1" in text and "broken.mindir" in text, text
    wait_until(lambda: not servable.pids(), 30, "something is left")


def test_RanksThatDisagree_AreNamed(make_servable: Make, parts: Parts):
    servable = make_servable()
    servable.start_server()
    # Batches of 16 on rank 0; no batch dimension on rank 1.
    servable.start_launcher([parts("rows2")[0], parts("single2")[1]])
    text = end_of(servable.server)
    assert "rank" in text and ("batch size" in text or "disagree" in text), text


def test_AnAllGatherThatWasExportedForOneRank_IsRefusedBeforeItRuns(make_servable: Make, parts: Parts):
    servable = make_servable()
    servable.start_server()
    servable.start_launcher(parts("alone2"))
    text = end_of(servable.server)
    assert "(AllGather) was exported for 1 rank, but its group 'mccl_world_group' has 2 here" in text, text
    assert "add_prim_attr('rank_size', 2)" in text


def test_ALauncherThatIsStopped_EndsItsAgents_AndAnotherTakesItsPlace(make_servable: Make, parts: Parts):
    servable = make_servable()
    servable.start_server()
    launcher = servable.start_launcher(parts("rows2"))
    servable.wait_ready()
    processes = [*servable.agents().values(), servable.scheduler()]
    assert launcher.stop(timeout=60) == 0, launcher.log
    assert not any(is_alive(pid) for pid in processes)
    servable.launchers.clear()
    assert servable.server.log.count("start success, listening on") == 2  # it stays
    servable.start_launcher(parts("rows2"), name="next")

    def works() -> bool:
        try:
            return ask_one(servable).shape == (6,)
        except Exception:
            return False

    wait_until(works, 240, servable.logs)
    servable.stop()


def test_AServerThatStopsWhileRanksAreMissing_TellsTheLaunchersThatCame(make_servable: Make, parts: Parts):
    servable = make_servable(rank_ips=("127.0.0.1", "192.0.2.1"))
    servable.start_server()
    launcher = servable.start_launcher(parts("rows2")[:1])
    wait_until(lambda: "no launcher has claimed rank 1" in servable.logs(), 60, servable.logs)
    servable.server.send_signal(signal.SIGTERM)
    servable.server.wait_exit(60)
    assert "RuntimeError: The distributed servable has been stopped: the server has stopped the servable" in end_of(
        launcher
    )
    assert servable.pids() == []
    servable.launchers.clear()
