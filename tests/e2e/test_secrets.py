"""The key of an encrypted model: in one protected place of the server, and nowhere else."""

import os
import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from mindspore_serving.client import Client
from servables import CHECKED_ADD_CONFIG, add_config, make_servable

PAGE = os.sysconf("SC_PAGE_SIZE")
KEY = b"a key of 24 bytes, no mo"  # of tests/support/export_models.py
ONE = {"x1": np.ones((2, 2), np.float32), "x2": np.ones((2, 2), np.float32)}

# The user's own copies are the user's to wipe: here that is done, so that what is found afterwards is ours.
SCRIPT = """
import ctypes
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
buffer = bytearray(24)
with open(os.path.join(folder, "key"), "rb", buffering=0) as file:
    file.readinto(buffer)
key = bytes(buffer)
server.start_servables(
    server.ServableStartConfig(folder, "secret", device_ids=0, dec_key=key, dec_mode="AES-CBC")
)
ctypes.memset(ctypes.c_char_p(key), 0, len(key))
buffer[:] = bytes(24)
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])
"""


def regions(pid: int) -> Iterator[tuple[int, int, set[str]]]:
    """The parts of a process's memory that are there: begin, end, VmFlags."""
    begin = end = resident = 0
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if found := re.match(r"([0-9a-f]+)-([0-9a-f]+) (.)", line):
            begin, end = (int(text, 16) for text in found.groups()[:2])
            resident = 0 if found[3] != "r" else -1
        elif line.startswith("Rss:") and resident:
            resident = int(line.split()[1])
        elif line.startswith("VmFlags:") and resident:
            yield begin, end, set(line.split()[1:])


def pieces(pid: int, begin: int, end: int) -> Iterator[bytes]:
    """The runs of present pages; reading the others would only make them."""
    with open(f"/proc/{pid}/pagemap", "rb", buffering=0) as pagemap, open(f"/proc/{pid}/mem", "rb", 0) as memory:
        pagemap.seek(begin // PAGE * 8)
        entries = np.frombuffer(pagemap.read((end - begin) // PAGE * 8), np.uint64)
        present = np.concatenate([[0], entries >> np.uint64(62) != 0, [0]]).astype(np.int8)
        edges = np.flatnonzero(np.diff(present))
        for first, last in zip(edges[::2], edges[1::2], strict=True):
            try:
                memory.seek(begin + int(first) * PAGE)
                yield memory.read(int(last - first) * PAGE)
            except OSError:
                pass  # the kernel's own


def places_of(pid: int, secrets: list[bytes]) -> list[set[str]]:
    """The VmFlags of each region that holds one of these."""
    return [
        flags
        for begin, end, flags in regions(pid)
        if any(secret in piece for piece in pieces(pid, begin, end) for secret in secrets)
    ]


def test_KeyIsInOneProtectedPageOfTheServer_AndNowhereElse(tmp_path, models, start_server):
    make_servable(tmp_path, "secret", add_config("secret"), {1: models / "secret.mindir"})
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "start.py").write_text(SCRIPT)
    server = start_server(tmp_path / "start.py")
    client = Client(server.grpc_address, "secret", "add")
    secrets = [KEY, KEY.hex().encode()]
    for _ in range(2):
        assert client.infer(ONE)[0]["y"].tolist() == [[2, 2], [2, 2]]
        (worker,) = server.worker_pids()
        assert places_of(worker, secrets) == []
        held = places_of(server.pid, secrets)
        assert len(held) == 1 and {"dd", "lo"} <= held[0], "left out of core dumps, and locked"
        # A worker that is started again gets it from there.
        os.kill(worker, signal.SIGKILL)
        deadline = time.monotonic() + 60
        while "error" in client.infer(ONE) and time.monotonic() < deadline:
            time.sleep(0.1)
    told = (server.log + server.worker_logs()).encode()
    for pid in server.pids():
        for name in ("cmdline", "environ"):
            told += Path(f"/proc/{pid}/{name}").read_bytes()
    assert not any(secret in told for secret in secrets)


def test_EncryptedModelWithAnExtraWorker_WhichNeedsNoKey(tmp_path, models, start_server):
    config = CHECKED_ADD_CONFIG.format(model="secret", with_batch_dim=False)
    make_servable(tmp_path, "secret", config, {1: models / "secret.mindir"})
    (tmp_path / "key").write_bytes(KEY)
    (tmp_path / "start.py").write_text(SCRIPT.replace("device_ids=0,", "device_ids=0, num_parallel_workers=2,"))
    server = start_server(tmp_path / "start.py")
    workers = server.worker_pids()
    assert len(workers) == 2
    client = Client(server.grpc_address, "secret", "add_checked")
    answers = [one.result() for one in [client.infer_async(ONE) for _ in range(50)]]
    assert all(float(answer[0]["total"]) == 8 for answer in answers), answers
    for worker in workers:
        assert places_of(worker, [KEY, KEY.hex().encode()]) == []
