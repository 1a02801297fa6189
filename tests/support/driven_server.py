"""A server that does what a test says while it runs: each line that comes over a socket is a Python expression, which
the script's main thread evaluates."""

import json
import socket
import textwrap
import time
from pathlib import Path
from typing import Any

from servers import ServerProcess, free_port

# Functions alone, so no MindSpore. The answer is in servable_config.py, which a test writes anew for a new version.
NUMBERS_CONFIG = """
import time
from mindspore_serving.server import register

{before}
ANSWER = {answer}

def work(x):
    time.sleep(x.item())
    return ANSWER

@register.register_method("y")
def answer(x):
    return register.call_preprocess(work, x)
"""

SCRIPT = """
import gc, json, os, signal, socket, sys, threading, time, traceback
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))

def config(name="numbers", devices=0, **arguments):
    return server.ServableStartConfig(folder, name, devices, **arguments)

background = []

def in_thread(function):
    background.append(threading.Thread(target=function, daemon=True))
    background[-1].start()

def join_threads():
    while background:
        background.pop().join()

{start}
listener = socket.create_server(("127.0.0.1", int(os.environ["SERVING_CONTROL_PORT"])))
print("driven", flush=True)
while True:
    connection, _ = listener.accept()
    with connection, connection.makefile("rw") as lines:
        for line in lines:
            try:
                reply = {{"value": eval(line)}}
            except Exception as error:
                reply = {{"error": str(error)}}
            lines.write(json.dumps(reply) + "\\n")
            lines.flush()
"""

START = """
server.start_servables(config())
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])
"""


def write_numbers(folder: Path, answer: float, version: int, *, name: str = "numbers", before: str = "") -> Path:
    """Writes folder/name with a servable_config.py that answers `answer`, and the directory of a version, whole the
    moment it appears. `before` is run when the file is imported."""
    servable = folder / name
    servable.mkdir(parents=True, exist_ok=True)
    fresh = servable / "servable_config.new"
    fresh.write_text(NUMBERS_CONFIG.format(answer=answer, before=before))
    fresh.rename(servable / "servable_config.py")
    incoming = servable / ".incoming"
    incoming.mkdir()
    incoming.rename(servable / str(version))
    return servable


class DrivenServer(ServerProcess):
    """A ServerProcess whose script is `start`, and then a loop that evaluates what call() sends."""

    def __init__(self, folder: Path, start: str = START, **arguments: Any) -> None:
        self._port = free_port()
        script = folder / "driven.py"
        script.write_text(textwrap.dedent(SCRIPT).lstrip().format(start=textwrap.dedent(start)))
        env = {**arguments.pop("env", {}), "SERVING_CONTROL_PORT": str(self._port)}
        super().__init__(script, env=env, **arguments)

    def wait_driven(self, timeout: float = 120) -> "DrivenServer":
        deadline = time.monotonic() + timeout
        while "driven\n" not in self.log:
            if self._process is not None and self._process.poll() is not None:
                raise RuntimeError(f"the script ended with {self._process.returncode}:\n{self.log}")
            assert time.monotonic() < deadline, self.log + self.worker_logs()
            time.sleep(0.02)
        return self

    def call(self, expression: str, timeout: float = 120) -> Any:
        """The value of a Python expression in the script's main thread; an exception there is a RuntimeError here."""
        with socket.create_connection(("127.0.0.1", self._port), timeout) as connection:
            connection.sendall(expression.encode() + b"\n")
            with connection.makefile() as lines:
                line = lines.readline()
        if not line:
            raise ConnectionError("the script has ended")
        reply = json.loads(line)
        if "error" in reply:
            raise RuntimeError(reply["error"])
        return reply["value"]

    def __enter__(self) -> "DrivenServer":
        try:
            self.start()
            return self.wait_driven()
        except BaseException:
            self.kill()
            raise
