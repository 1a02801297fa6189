"""Whole start-up scripts in processes of their own: starting, serving, failing, ending. No model, so no MindSpore."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request

import pytest

from servers import free_port

CONFIG = """
import numpy as np
from mindspore_serving.server import register

def half(x):
    if (x < 0).any():
        raise ValueError("negative")
    return x / 2

def many(instances):
    for (x,) in instances:
        yield x * 2, "text"

@register.register_method("y")
def halve(x):
    return register.call_preprocess(half, x)

@register.register_method(["y", "name"])
def double(x):
    y, name = register.call_preprocess_pipeline(many, x)
    return y, name

@register.register_method(["position", "x"])
def argmax(x):
    return register.call_postprocess("argmax_cpp", x), x
"""


def post(port, method, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/model/numbers:{method}", json.dumps(body).encode(), method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as reply:
            return json.loads(reply.read())
    except urllib.error.HTTPError as error:
        return json.loads(error.read())


class Script:
    """A start-up script that is running."""

    def __init__(self, folder, text):
        self.port = free_port()
        path = folder / "serving_server.py"
        head = f"""
            import os, sys, time
            from mindspore_serving import server
            here = os.path.dirname(os.path.abspath(__file__))
            port = {self.port}
            """
        path.write_text(textwrap.dedent(head) + textwrap.dedent(text))
        self.process = subprocess.Popen(
            [sys.executable, str(path)],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.lines = []

    def wait_for(self, text):
        for line in self.process.stdout:
            self.lines.append(line)
            if text in line:
                return
        raise AssertionError(f"the script ended without '{text}':\n{''.join(self.lines)}")

    def end(self, words=None):
        """Exit code and everything that was printed, having told it these words."""
        output, _ = self.process.communicate(words, timeout=60)
        return self.process.returncode, "".join(self.lines) + output


@pytest.fixture
def folder(tmp_path):
    """A folder with a space in its path that holds the servable `numbers`."""
    root = tmp_path / "my servables"
    (root / "numbers" / "1").mkdir(parents=True)
    (root / "numbers" / "servable_config.py").write_text(CONFIG)
    return root


@pytest.fixture
def run(folder):
    scripts = []

    def start(text):
        scripts.append(Script(folder, text))
        return scripts[-1]

    yield start
    for script in scripts:
        if script.process.poll() is None:
            script.process.kill()
        script.process.communicate()


START = """
server.start_servables(server.ServableStartConfig(here, "numbers", (0, 1)))
server.start_restful_server(f"127.0.0.1:{port}")
"""
READY = "Serving RESTful server start success, listening on "


def worker_pids(process):
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as children:
        direct = [int(pid) for pid in children.read().split()]
    found = []
    for task in os.listdir(f"/proc/{process.pid}/task"):
        with open(f"/proc/{process.pid}/task/{task}/children") as children:
            found += [int(pid) for pid in children.read().split()]
    return sorted(set(direct + found))


def is_gone(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rsplit(")", 1)[1].split()[0] == "Z"
    except OSError:
        return True


def test_methods_of_python_functions_answer(run):
    script = run(START)
    script.wait_for(READY)
    assert post(script.port, "halve", {"instances": [{"x": [1.0, 2.0]}, {"x": 4}]}) == {
        "instances": [{"y": [0.5, 1.0]}, {"y": 2.0}]
    }
    assert post(script.port, "double", {"instances": [{"x": 3}, {"x": [1.5]}]}) == {
        "instances": [{"y": 6, "name": "text"}, {"y": [3.0], "name": "text"}]
    }
    assert post(script.port, "argmax", {"instances": {"x": [[1.0, 2.0], [9.0, 4.0]]}}) == {
        "instances": [{"position": 2, "x": [[1.0, 2.0], [9.0, 4.0]]}]
    }
    reply = post(script.port, "halve", {"instances": [{"x": 1}, {"x": -1}]})
    line = CONFIG[: CONFIG.index("raise ValueError")].count("\n") + 1
    assert reply["instances"] == [
        {"y": 0.5},
        {"error_msg": f"Preprocess Failed: ValueError: negative (numbers/servable_config.py:{line}, function half)"},
    ]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("busy", [False, True], ids=["ended", "sleeping"])
def test_a_signal_ends_script_and_workers_with_code_0(run, number, busy):
    sleep = "try:\n    time.sleep(1000)\nfinally:\n    print('cleaned up')\n" if busy else ""
    script = run(START + "print('last line', flush=True)\n" + sleep)
    script.wait_for("last line")
    workers = worker_pids(script.process)
    assert len(workers) == 2
    time.sleep(0.3)
    script.process.send_signal(number)
    code, output = script.end()
    assert code == 0, output
    assert "Traceback" not in output and "KeyboardInterrupt" not in output
    assert ("cleaned up" in output) == busy
    assert all(is_gone(pid) for pid in workers)


def test_ctrl_c_in_a_terminal_does_not_kill_workers_before_the_server_says_so(run):
    script = run(START)
    script.wait_for(READY)
    for worker in worker_pids(script.process):
        os.kill(worker, signal.SIGINT)
    time.sleep(0.3)
    assert post(script.port, "halve", {"instances": {"x": 4}}) == {"instances": [{"y": 2.0}]}


def test_everything_can_be_started_again_after_stop(run):
    script = run(
        "for turn in range(2):\n"
        + textwrap.indent(START + "print('turn', turn, flush=True)\nserver.stop()\nserver.stop()\n", "    ")
        + "print('end')\n"
    )
    code, output = script.end()
    assert code == 0, output
    assert "turn 0" in output and "turn 1" in output and "end" in output


def test_a_script_without_servables_ends_at_once(run):
    code, output = run('server.start_restful_server(f"127.0.0.1:{port}")\n').end()
    assert code == 0, output
    assert READY in output


@pytest.mark.parametrize("child", ["pass", "server.start_grpc_server(f'unix:{here}/socket')\n    server.stop()"])
@pytest.mark.parametrize("servables", [False, True], ids=["no servables", "servables"])
def test_a_forked_child_ends_and_leaves_the_parents_server_alone(run, child, servables):
    start = START if servables else 'server.start_restful_server(f"127.0.0.1:{port}")\n'
    script = run(
        f"""{start}
child = os.fork()
if not child:
    {child}
    sys.exit(7)
print("child", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
input()
server.stop()
"""
    )
    script.wait_for("child 7")
    with socket.create_connection(("127.0.0.1", script.port)) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: here\r\n\r\n")
        assert connection.recv(12) == b"HTTP/1.1 200"
    code, output = script.end("\n")
    assert code == 0, output


def test_a_signal_handler_may_stop_the_server_while_it_is_being_made(run):
    """The handler runs in the thread that makes the server, in the middle of that."""
    script = run(
        """
        import signal
        from mindspore_serving._native import load_native

        signal.signal(signal.SIGUSR1, lambda *_: (server.stop(), print("handled")))
        core = load_native("_core")
        make = core.Server

        def interrupted(*arguments):
            signal.raise_signal(signal.SIGUSR1)
            return make(*arguments)

        core.Server = interrupted
        server.start_restful_server(f"127.0.0.1:{port}")
        """
    )
    code, output = script.end()
    assert code == 0 and "handled" in output and READY in output, output


def test_a_mistake_in_the_config_is_raised_with_its_file_and_line(run, folder):
    (folder / "numbers" / "servable_config.py").write_text("import numpy\n\nvalue = numpy.nothing\n")
    code, output = run(START).end()
    assert code == 1
    assert "RuntimeError" in output
    assert f'{folder}/numbers/servable_config.py", line 3, in <module>' in output
    assert "AttributeError: module 'numpy' has no attribute 'nothing'" in output
    assert READY not in output


def test_a_worker_that_dies_is_told_with_the_end_of_its_log(run, folder):
    (folder / "numbers" / "servable_config.py").write_text("import os\nprint('last words')\nos.abort()\n")
    code, output = run(START.replace("(0, 1)", "0")).end()
    assert code == 1
    assert "last words" in output
    assert "last words" in (folder / "serving_logs" / "log_numbers_device0_version1.log").read_text()


def test_a_declared_model_needs_a_version_and_a_file(run, folder):
    config = folder / "numbers" / "servable_config.py"
    config.write_text(
        "from mindspore_serving.server import register\nregister.declare_servable('a.mindir', 'MindIR')\n"
        "@register.register_method('y')\ndef f(x):\n    return register.call_servable(x)\n"
    )
    code, output = run(START).end()
    assert code == 1 and "Load model failed, servable directory" in output and "a.mindir' does not exist" in output
    (folder / "numbers" / "1").rmdir()
    code, output = run(START).end()
    assert code == 1 and "There is no valid version of servable 'numbers'" in output


def test_an_occupied_port_is_an_error_and_stops_the_servables(run):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        script = run(START.replace("{port}", str(taken.getsockname()[1])))
        code, output = script.end()
    assert code == 1
    assert "RuntimeError" in output and READY not in output


def test_workers_end_when_the_server_is_killed(run):
    script = run(START)
    script.wait_for(READY)
    workers = worker_pids(script.process)
    assert len(workers) == 2
    script.process.kill()
    deadline = time.monotonic() + 20
    while not all(is_gone(pid) for pid in workers):
        assert time.monotonic() < deadline, "workers outlive their server"
        time.sleep(0.05)


def test_a_worker_told_to_terminate_finishes_and_leaves(run, folder):
    script = run(START.replace("(0, 1)", "0"))
    script.wait_for(READY)
    (worker,) = worker_pids(script.process)
    os.kill(worker, signal.SIGTERM)
    deadline = time.monotonic() + 20
    while not is_gone(worker):
        assert time.monotonic() < deadline, "the worker ignores SIGTERM"
        time.sleep(0.05)
    assert "Traceback" not in (folder / "serving_logs" / "log_numbers_device0_version1.log").read_text()
