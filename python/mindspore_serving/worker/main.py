"""The life of a worker process: take the start order, load the servable, run until the server says stop."""

from __future__ import annotations

import faulthandler
import json
import logging
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn, cast

from mindspore_serving._native import load_native
from mindspore_serving._spin import worker_spin_microseconds
from mindspore_serving.server.register import _calls, _registry
from mindspore_serving.worker import _servable_module

if TYPE_CHECKING:
    from mindspore_serving._core import Worker
    from mindspore_serving.worker.stages import ServableStages

logger = logging.getLogger("mindspore_serving.worker")

# The exit code of a distributed worker whose ranks are lost: it is started again at once. Known to the server's
# supervisor (csrc/server).
RANKS_LOST = 75


@dataclass(frozen=True)
class StartOrder:
    """What the server sends first."""

    servable_directory: str
    servable_name: str
    version: int
    version_directory: str | None
    device_id: int | None  # None: of an extra worker
    device_type: str | None
    dec_mode: str | None  # None: no model is encrypted. The key itself stays in native memory: Worker.decrypt
    extra: bool = False  # runs Python stages only
    has_extra_workers: bool = False
    distributed: dict[str, Any] | None = None  # rank_models.RankOrder, of a distributed servable

    @classmethod
    def from_json(cls, text: bytes) -> StartOrder:
        """Read the server's JSON."""
        return cls(**json.loads(text))

    def __repr__(self) -> str:
        return f"StartOrder({self.servable_name!r}, version {self.version}, {self.place})"

    @property
    def place(self) -> str:
        """What the log calls this worker."""
        if self.distributed is not None:
            return "distributed"
        return "without a device" if self.extra else f"on device {self.device_id}"


class _NativeLog(logging.Handler):
    """Python's log records as lines of the native log."""

    def __init__(self, core: Any) -> None:
        super().__init__()
        self._log = core.log

    def emit(self, record: logging.LogRecord) -> None:
        level = 0 if record.levelno < logging.INFO else min(3, record.levelno // 10 - 1)
        self._log(level, self.format(record))


def main(argv: list[str]) -> int:
    """Run a worker.

    Args:
        argv: The command line; its last part is the number of the control descriptor.

    Returns:
        The process's exit code.
    """
    if len(argv) != 2 or not argv[1].isdigit():
        print("mindspore_serving.worker is started by the server, not by hand: see start_servables", file=sys.stderr)
        return 2
    faulthandler.enable()  # a crash in native code leaves the Python stack in the log
    core = cast(Any, load_native("_core"))
    set_up_logging(core)
    worker: Worker = core.Worker(int(argv[1]))
    worker.set_option("spin_us", worker_spin_microseconds())
    stop_asked = False

    def on_terminate(_number: int, _frame: object) -> None:
        nonlocal stop_asked
        stop_asked = True
        worker.request_stop()

    def take_signals() -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches the whole process group; the server tells us
        signal.signal(signal.SIGTERM, on_terminate)

    take_signals()
    try:
        order = StartOrder.from_json(worker.receive_start())
        worker.follow_server()
        try:
            stages = _load(worker, order, lambda: stop_asked)
        except BaseException as error:
            traceback.print_exc()
            worker.send_failed(
                f"Servable '{order.servable_name}' version {order.version} cannot be started: "
                f"{_servable_module.describe_failure(error)}"
            )
            return 1
        worker.forget_key()
        take_signals()  # MindSpore puts a handler of its own in place of ours when it compiles
        if stop_asked:
            return 0
        for line in _opening_lines(order, stages.description):
            print(line, flush=True)
        worker.send_ready(json.dumps(stages.description).encode())
        end = worker.run()
    except ConnectionError as error:
        logger.info("The worker ends: %s", error)
        _leave()
    finally:
        _calls.set_running(None)  # the native worker ends with this function, not with the interpreter
    if end == "ranks lost":
        assert stages.ranks is not None
        print(f"The ranks are lost: {stages.ranks.failure()}", flush=True)
        _leave(RANKS_LOST)
    if end == "server gone":
        _leave()  # stages may still be running, and nobody waits for them
    if stages.ranks is not None:
        stages.ranks.stop("the server has stopped the servable")
    return 0


def _opening_lines(order: StartOrder, description: dict[str, Any]) -> list[str]:
    """What the log of a worker begins with, at every log level: what it serves, and how each model is run."""
    methods = ", ".join(method["name"] for method in description["methods"])
    lines = [
        f"Servable {order.servable_name} version {order.version} {order.place}, process {os.getpid()}: "
        f"methods {methods}"
    ]
    for model in description["models"]:
        sizes = f", batch sizes {model['batch_sizes']}" if model["batch_sizes"] else ""
        lines.append(f"Model {model['file']} is run by {model['way']}{sizes}")
    return lines


def _load(worker: Worker, order: StartOrder, stop_asked: Callable[[], bool]) -> ServableStages:
    if order.device_id is not None and order.distributed is None:
        os.environ["SERVING_DEVICE_ID"] = str(order.device_id)
    _servable_module.import_servable_config(order.servable_directory, order.servable_name)
    registration = _registry.registration_of(os.path.join(order.servable_directory, order.servable_name))
    # Only now: numpy and what else the stages need, after the user's file had its chance to set things up.
    from mindspore_serving.worker.stages import ServableStages

    return ServableStages(worker, order, registration, stop_asked)


def _leave(code: int | None = None) -> NoReturn:
    """End at once, with all that this process has started; without a code by the signal that ends the others."""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        pass  # the server, which reads the log, is gone, or the user's code has put something else in their place
    if code is None and os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # with what the user's code has started: nobody else ends that any more
    os._exit(code or 0)


def set_up_logging(core: Any) -> None:
    """Let Python's log records become lines of the native log.

    Args:
        core: The native module.
    """
    root = logging.getLogger()
    root.addHandler(_NativeLog(core))
    # The native side filters by GLOG_v.
    logging.getLogger("mindspore_serving").setLevel(logging.DEBUG)
