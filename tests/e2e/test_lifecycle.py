"""Starting, failing to start, stopping: what is said, and what is left behind."""

import os
import signal
import socket
import time
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from mindspore_serving.client import Client
from servables import add_config, make_script, make_servable
from servers import ServerProcess, session_pids

ONE = {"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}


@pytest.fixture
def add_folder(tmp_path: Path, models: Path) -> Path:
    make_servable(tmp_path, "adder", add_config("add"), {1: models / "add.mindir"})
    return tmp_path


def files_in(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def started_and_failed(script: Path) -> str:
    """Runs a script that must fail by itself; returns what it printed."""
    server = ServerProcess(script)
    try:
        server.start()
        assert server.wait_exit(90) != 0, server.log
        assert server.pids() == [], "a process is left"
        return server.log
    finally:
        server.kill()


# ---------------------------------------------------------------------------------------------- stopping
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_SignalStopsServerAndWorkers_NothingIsLeft(add_folder, start_server, number):
    script = make_script(add_folder, ['"adder"'])
    working_folder = add_folder / "cwd"
    working_folder.mkdir()
    shared_memory, sources = set(os.listdir("/dev/shm")), files_in(add_folder)
    server = start_server(script, cwd=working_folder)
    assert len(server.worker_pids()) == 1
    assert Client(server.grpc_address, "adder", "add").infer(ONE)[0]["y"].tolist() == [[2, 2], [2, 2]]
    assert server.stop(number) == 0, server.log
    assert server.pids() == []
    assert set(os.listdir("/dev/shm")) <= shared_memory
    new = {name for name in files_in(add_folder) - sources if "__pycache__" not in name} - {"cwd/start.log"}
    assert new and all(name.startswith("cwd/serving_logs/") for name in new), new


def test_AsManyEventLoopsAsMayBeAskedFor(add_folder, start_server):
    server = start_server(make_script(add_folder, ['"adder"']), env={"MSSERVING_IO_THREADS": "48"})
    for _ in range(4):  # of new connections, which the kernel spreads over the loops
        assert Client(server.grpc_address, "adder", "add").infer(ONE)[0]["y"].tolist() == [[2, 2], [2, 2]]
    assert server.stop(signal.SIGTERM) == 0, server.log


def test_ServerKilledOutright_WorkersEndByThemselves(add_folder, start_server):
    server = start_server(make_script(add_folder, ['"adder"']))
    session = server.pid
    assert server.worker_pids()
    server.send_signal(signal.SIGKILL)
    server.wait_exit()
    deadline = time.monotonic() + 15
    while session_pids(session) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert session_pids(session) == []


@contextmanager
def with_a_forked_child(folder: Path, start_server):
    """A server whose script forks a child when all has started, and both once there is a worker. The child has all
    descriptors of the server's and lives until the end."""
    child_file = folder / "child"
    script = make_script(folder, ['"adder"'])
    script.write_text(
        script.read_text()
        + "import pathlib, time\n"
        + "child = os.fork()\n"
        + "if child == 0:\n"
        + "    time.sleep(600)\n"
        + "    os._exit(0)\n"
        + f"pathlib.Path({str(child_file)!r}).write_text(str(child))\n"
    )
    server = start_server(script)
    deadline = time.monotonic() + 60
    while not child_file.exists() or not child_file.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    child = int(child_file.read_text())
    try:
        yield server, [pid for pid in server.worker_pids() if pid != child]
        assert Path(f"/proc/{child}").exists()
    finally:
        os.kill(child, signal.SIGKILL)


def test_ServerKilledOutright_WorkersEnd_ThoughAForkedChildHoldsItsDescriptors(add_folder, start_server):
    with with_a_forked_child(add_folder, start_server) as (server, workers):
        assert len(workers) == 1
        server.send_signal(signal.SIGKILL)
        server.wait_exit()
        deadline = time.monotonic() + 15
        while any(Path(f"/proc/{pid}").exists() for pid in workers) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert not [pid for pid in workers if Path(f"/proc/{pid}").exists()]


def test_StoppedServer_ListensNoMore_ThoughAForkedChildHoldsItsDescriptors(add_folder, start_server):
    with with_a_forked_child(add_folder, start_server) as (server, _):
        assert server.stop(signal.SIGTERM) == 0, server.log
        for address in (server.grpc_address, server.rest_address):
            host, _, port = address.rpartition(":")
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection((host, int(port)), timeout=10)


def test_StopAndStartAgainInOneScript(add_folder, start_server):
    script = add_folder / "again.py"
    script.write_text(
        "import os\n"
        "from mindspore_serving import server\n"
        "folder = os.path.dirname(os.path.abspath(__file__))\n"
        "for _ in range(2):\n"
        "    server.stop()\n"
        '    server.start_servables(server.ServableStartConfig(folder, "adder", device_ids=0))\n'
        '    server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])\n'
        'server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])\n'
    )
    server = start_server(script)
    assert len(server.worker_pids()) == 1
    assert "error" not in Client(server.grpc_address, "adder", "add").infer(ONE)


def test_WorkerKilled_IsStartedAgainAndAnswers(add_folder, start_server):
    server = start_server(make_script(add_folder, ['"adder"']))
    client = Client(server.grpc_address, "adder", "add")
    assert client.infer(ONE)[0]["y"].tolist() == [[2, 2], [2, 2]]
    (worker,) = server.worker_pids()
    os.kill(worker, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        answer = client.infer(ONE)
        if "error" not in answer:
            break
        time.sleep(0.1)
    assert answer[0]["y"].tolist() == [[2, 2], [2, 2]]
    assert server.worker_pids() and worker not in server.worker_pids()


# ---------------------------------------------------------------------------------------------- failing to start
def test_FailingConfig_RaisesInTheUsersScriptWithFileLineAndMessage(tmp_path, models):
    config = add_config("add") + '\nraise KeyError("the calibration table is missing")\n'
    servable = make_servable(tmp_path, "adder", config, {1: models / "add.mindir"})
    line = next(
        number
        for number, text in enumerate((servable / "servable_config.py").read_text().splitlines(), 1)
        if text.startswith("raise")
    )
    log = started_and_failed(make_script(tmp_path, ['"adder"']))
    assert "the calibration table is missing" in log
    assert f'servable_config.py", line {line}' in log or f"servable_config.py:{line}" in log
    assert "RuntimeError" in log and "start.py" in log


@pytest.mark.parametrize(
    ("arguments", "token"),
    [
        ('"nobody"', "Check servable config failed, directory"),
        ('"adder", version_number=3', "3"),
        ('"empty"', "There is no valid version of servable"),
        ('"adder", device_type="Abacus"', "device_type"),
    ],
)
def test_WrongStart_SaysWhatIsWrong(add_folder, models, arguments, token):
    make_servable(add_folder, "empty", add_config("add"), {})
    log = started_and_failed(make_script(add_folder, [arguments]))
    assert "RuntimeError" in log and token in log


def test_UnusableModelFile_IsNamed(tmp_path):
    noise = tmp_path / "add.mindir"
    noise.write_bytes(b"this is no model")
    make_servable(tmp_path, "adder", add_config("add"), {1: noise})
    log = started_and_failed(make_script(tmp_path, ['"adder"']))
    assert "RuntimeError" in log and "add.mindir" in log


def test_PortInUse_IsNamedAndNothingIsLeft(add_folder, start_server):
    script = make_script(add_folder, ['"adder"'])
    first = start_server(script)
    second = ServerProcess(script, cwd=add_folder / "adder", addresses=(first.grpc_address, first.rest_address))
    try:
        second.start()
        assert second.wait_exit(60) != 0
        assert first.grpc_address in second.log or first.grpc_address.split(":")[1] in second.log
        assert second.pids() == []
    finally:
        second.kill()
    assert "error" not in Client(first.grpc_address, "adder", "add").infer(ONE)


# ---------------------------------------------------------------------------------------------- versions, servables
@pytest.mark.parametrize(("asked", "served"), [(0, 12), (1, 1), (12, 12)])
def test_VersionNumberChoosesTheFolder(tmp_path, models, start_server, asked, served):
    config = add_config("model")
    servable = make_servable(tmp_path, "adder", config, {})
    for version, model in ((1, "add"), (12, "plus100")):
        (servable / str(version)).mkdir()
        (servable / str(version) / "model.mindir").write_bytes((models / f"{model}.mindir").read_bytes())
    (servable / "notes").mkdir()  # not a version
    server = start_server(make_script(tmp_path, [f'"adder", version_number={asked}']))
    expected = {1: 2.0, 12: 102.0}[served]
    for version in (0, served):
        answer = Client(server.grpc_address, "adder", "add", version_number=version).infer(ONE)
        assert answer[0]["y"].tolist() == [[expected] * 2] * 2
    other = Client(server.grpc_address, "adder", "add", version_number=13 - served).infer(ONE)
    assert "servable is not available" in other["error"]


def test_TwoServablesInOneServer_AnswerEachForItself(adders):
    assert len(adders.worker_pids()) == 2
    for servable in ("plain", "batched"):
        assert Client(adders.grpc_address, servable, "add").infer(ONE)[0]["y"].tolist() == [[2, 2], [2, 2]]


def test_PathWithSpaces_Works(tmp_path, models, start_server):
    folder = tmp_path / "my models"
    folder.mkdir()
    make_servable(folder, "adder", add_config("add"), {1: models / "add.mindir"})
    server = start_server(make_script(folder, ['"adder"']))
    assert "error" not in Client(server.grpc_address, "adder", "add").infer(ONE)
