"""What distributed servables answer: compared with the unsplit model."""

import re
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from certificates import Authority
from export_rank_models import BATCH, SECRET_KEY, SQUARE, WEIGHT
from mindspore_serving.client import Client
from rank_servable import Code, RankServable, rows
from servers import copy_example, run_script

Parts = Callable[..., list[Path]]
Make = Callable[..., RankServable]


def ask(servable: RankServable, values: np.ndarray, method: str = "predict") -> np.ndarray:
    replies = Client(servable.server.grpc_address, "ranks", method).infer([{"x": row} for row in values])
    assert isinstance(replies, list) and all("error" not in reply for reply in replies), replies
    return np.array([reply["y"] for reply in replies])


def check_rows(servable: RankServable, count: int, seed: int = 0) -> None:
    values = rows(count, seed)
    np.testing.assert_allclose(ask(servable, values), values @ WEIGHT, rtol=1e-4, atol=1e-4)


def test_TwoRanks_EncryptedFiles_SubGraphs_OverTls(tmp_path: Path, make_servable: Make, parts: Parts):
    if not shutil.which("openssl"):
        pytest.skip("needs the program openssl")
    authority = Authority(tmp_path)
    authority.issue("server")
    authority.issue("agents")
    files = {name: str(tmp_path / name) for name in ("server.crt", "server.key", "ca.crt", "agents.crt", "agents.key")}
    server_tls = Code(f"SSLConfig({files['server.crt']!r}, {files['server.key']!r}, {files['ca.crt']!r}, True)")
    agents_tls = Code(f"SSLConfig({files['agents.crt']!r}, {files['agents.key']!r}, {files['ca.crt']!r})")
    servable = make_servable(subgraphs=2, start={"ssl_config": server_tls})
    servable.start_server()
    # Without a certificate nobody claims ranks; the right launcher is not disturbed by it.
    nobody = servable.start_launcher(parts("rows2"), name="nobody", ssl_config=Code("SSLConfig(custom_ca=None)"))
    right = servable.start_launcher(
        list(zip(parts("secret2"), parts("secret2"), strict=True)),
        dec_key=SECRET_KEY,
        ssl_config=agents_tls,
    )
    servable.wait_ready()
    assert "has returned" not in nobody.log
    nobody.kill()
    servable.launchers.remove(nobody)

    for count in (1, 5, BATCH, 100):
        check_rows(servable, count, seed=count)
    values = rows(3)
    np.testing.assert_allclose(ask(servable, values, "predict_1"), values @ WEIGHT, rtol=1e-4, atol=1e-4)
    assert "startup_agents has returned" in right.log
    assert SECRET_KEY.decode() not in servable.logs()
    servable.stop()


def test_FourRanks_OfTwoLaunchers(make_servable: Make, parts: Parts):
    # One machine plays two: both addresses are its own, so that each launcher is told which ranks are its.
    servable = make_servable(rank_ips=["127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"])
    servable.start_launcher(parts("rows4", (2, 3)), name="second", agent_ip="127.0.0.2", rank_start=2)
    servable.start_server()  # after the launcher: it waits
    servable.start_launcher(parts("rows4", (0, 1)), name="first", agent_ip="127.0.0.1", rank_start=0)
    servable.wait_ready()
    assert sorted(servable.agents()) == [0, 1, 2, 3]
    check_rows(servable, 100)
    servable.stop()


def test_RequestsShareBatches(make_servable: Make, parts: Parts):
    servable = make_servable()
    servable.start_server()
    servable.start_launcher(parts("whole2"))
    servable.wait_ready()

    def alone_or_not(number: int) -> bool:
        """Every row of an answer is the sum over its batch, whose free places repeat the last row."""
        own = np.full(8, number, np.float32)
        return not np.allclose(ask(servable, own[np.newaxis]), BATCH * own)

    assert not alone_or_not(3)
    with ThreadPoolExecutor(32) as pool:
        shared = list(pool.map(alone_or_not, range(1, 1001)))
    assert any(shared)  # how many depends on the machine
    servable.stop()


def test_TwoStages_TheSecondTakesInputsToo(make_servable: Make, parts: Parts):
    servable = make_servable(declared={"stage_size": 2})
    servable.start_server()
    servable.start_launcher(parts("staged2"))
    servable.wait_ready()
    for seed in range(5):
        values = rows(7, seed)
        np.testing.assert_allclose(ask(servable, values), values @ SQUARE + values, rtol=1e-4, atol=1e-4)
    servable.stop()


def test_NoBatchDimension(make_servable: Make, parts: Parts):
    servable = make_servable(declared={"with_batch_dim": False})
    servable.start_server()
    servable.start_launcher(parts("single2"))
    servable.wait_ready()
    check_rows(servable, 9)
    servable.stop()


EXAMPLES = {
    "matmul_distributed": ["gRPC predict: 100 instances, as the unsplit model", "REST predict: as the unsplit model"],
    "pipeline_distributed": ["gRPC classify: 100 instances, as the unsplit model", "REST classify"],
}


@pytest.mark.parametrize(
    ("name", "ranks", "arguments"),
    [
        ("matmul_distributed", 2, []),
        ("matmul_distributed", 4, []),
        ("pipeline_distributed", 2, []),
        ("pipeline_distributed", 2, ["--pipeline"]),
    ],
)
def test_ExampleRuns(name: str, ranks: int, arguments: list[str], tmp_path: Path):
    from servers import ServerProcess, free_port

    folder = copy_example(name, tmp_path)
    env = {"SERVING_RANKS_ADDRESS": f"127.0.0.1:{free_port()}", "MATMUL_RANKS": str(ranks)}
    run_script(folder / "export_model.py", env=env)
    server = ServerProcess(folder / "serving_server.py", env=env, arguments=arguments)
    agents = ServerProcess(folder / "serving_agents.py", env=env, listens=())
    try:
        server.start()
        agents.start()
        server.wait_ready(240)
        printed = run_script(folder / "serving_client.py", env=server.client_env)
        for text in EXAMPLES[name]:
            assert text in printed
        assert server.stop(timeout=60) == 0, server.log
        assert agents.wait_exit(60) == 0, agents.log
    finally:
        server.kill()
        agents.kill()


def test_EveryDistributedExampleIsListedHere_AndUsesTheDocumentedPorts():
    from servers import EXAMPLES as FOLDER

    assert sorted(path.parent.name for path in FOLDER.glob("*/serving_agents.py")) == sorted(EXAMPLES)
    for name in EXAMPLES:
        for script in ("serving_server.py", "serving_agents.py"):
            assert re.search(r'"SERVING_RANKS_ADDRESS", "127\.0\.0\.1:6200"', (FOLDER / name / script).read_text())
