"""The process's one server: starting, waiting and stopping. Everything that serves is native; nothing here runs a
user's servable."""

from __future__ import annotations

import atexit
import os
import signal
import sys
import threading
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from mindspore_serving._native import load_native
from mindspore_serving._spin import spin_microseconds
from mindspore_serving.server import _checks, _launch
from mindspore_serving.server._servable_config import ServableStartConfig
from mindspore_serving.server._versions import RunningVersions

if TYPE_CHECKING:
    from mindspore_serving._core import Server as NativeServer
    from mindspore_serving.server._version_watch import VersionWatch

DEFAULT_STOP_TIMEOUT = 10.0  # seconds
_MAX_STOP_TIMEOUT = 86_400.0
_MAX_IO_THREADS = 48  # kMaxIoThreads in csrc/server/front_end.h
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class _Running:
    """A native server and what this process has changed for it. At most one runs."""

    def __init__(self) -> None:
        core = cast(Any, load_native("_core"))
        self.native: NativeServer = core.Server(_io_threads(), _worker_silence_seconds(), spin_microseconds() / 1e6)
        self.pid = os.getpid()
        self.started: set[str] = set()
        self.versions: RunningVersions | None = None  # from the first start_servables on
        self.previous_handlers: dict[signal.Signals, Any] = {}
        self.monitor: threading.Thread | None = None
        self.watch: VersionWatch | None = None

    def take_signals(self) -> None:
        """SIGINT and SIGTERM stop the server from now on. Python's own handlers are only for a script whose main
        thread is busy in Python when that has happened: `_monitor` runs them there, and they end the script."""
        if not self.previous_handlers and threading.current_thread() is threading.main_thread():
            for number in _STOP_SIGNALS:
                self.previous_handlers[number] = signal.signal(number, _end_script)
        self.native.install_signal_handlers()

    def give_signals_back(self) -> None:
        self.native.restore_signal_handlers()
        if threading.current_thread() is not threading.main_thread():
            return  # Python allows it in the main thread alone; a script that ends does not miss it
        for number, handler in self.previous_handlers.items():
            signal.signal(number, signal.SIG_DFL if handler is None else handler)
        self.previous_handlers.clear()

    def end_watch(self) -> None:
        if self.watch is not None:
            self.watch.end()

    def join_threads(self) -> None:
        for thread in (self.monitor, self.watch):
            if thread is not None and thread is not threading.current_thread():
                thread.join()

    def interruption_check(self) -> Callable[[str], None]:
        """`check_interrupted` for those that this object keeps: it keeps them alive, and they not it, so that all of a
        stopped server is given back at once and not when Python looks for cycles."""
        this = weakref.ref(self)

        def check(doing: str) -> None:
            running = this()
            if running is None:
                raise _ended_by_stop(doing)
            running.check_interrupted(doing)

        return check

    def check_interrupted(self, doing: str) -> None:
        """Raise if the server is being stopped while `doing` waits."""
        if _running is not self:
            raise _ended_by_stop(doing)
        number = self.native.stop_requested()
        if number:
            raise RuntimeError(
                f"{doing} was interrupted by signal {signal.Signals(number).name}: all workers are stopped"
            )


# One start call at a time; held while waiting, so taken before _lock and never by stop().
start_lock = threading.RLock()
# Guards which server is the running one, and which one is stopping. A signal handler of the user's may call stop() in
# the middle of either.
_lock = threading.RLock()
_running: _Running | None = None
_stopping: _Running | None = None  # the one that stop() has not finished with
_stop_timeout = DEFAULT_STOP_TIMEOUT  # seconds; kept from one server to the next
_exit_code = 0  # what the process ends with after a stop that nobody asked for


def start_servables(
    servable_configs: ServableStartConfig | list[ServableStartConfig] | tuple[ServableStartConfig, ...],
    enable_lite: bool = False,
) -> None:
    """Start one or more servables and wait until requests reach them.

    Every servable version gets one worker process for each of its devices, and the extra ones that
    `ServableStartConfig.num_parallel_workers` asks for. The processes' output goes to
    ``serving_logs`` in the current working directory. When the call returns, all of them are ready, and the script
    keeps running after its last line until SIGINT (Ctrl+C), SIGTERM or `stop`.

    Called again on a running server, it adds servables, or versions of one. What runs goes on as before, also if the
    call fails. Anything that a failing first call leaves behind is stopped.

    Args:
        servable_configs (Union[ServableStartConfig, list[ServableStartConfig], tuple[ServableStartConfig]]): What to
            start. Configs of the same servable and version are merged.
        enable_lite (bool, optional): Taken for scripts that ran their models with MindSpore Lite. MindSpore runs them
            here, which a warning says when it is True. Default: False.

    Raises:
        RuntimeError: A servable could not be started, or runs already; the text carries the reason with the file and
            line of the user's own code where there is one. If it was the first call, everything that was running has
            been stopped.

    Examples:
        >>> import os
        >>> from mindspore_serving import server
        >>>
        >>> servable_dir = os.path.abspath(".")
        >>> resnet_config = server.ServableStartConfig(servable_dir, "resnet", device_ids=(0, 1))
        >>> add_config = server.ServableStartConfig(servable_dir, "add", device_ids=(2, 3))
        >>> server.start_servables(servable_configs=(resnet_config, add_config))  # press Ctrl+C to stop
        >>> server.start_grpc_server("0.0.0.0:5500")
    """
    with StopOnError() as call:
        call.stop_on_error = not servables_run()
        configs = _launch.check_configs(servable_configs)
        if _checks.check_bool("enable_lite", enable_lite):
            warnings.warn("enable_lite has no effect: MindSpore runs the models, not MindSpore Lite", stacklevel=2)
        start_planned(
            lambda log_directory: _launch.plan_servables(configs, log_directory), later=not call.stop_on_error
        )


def start_planned(plan: Callable[[Path], list[_launch.ServablePlan]], *, later: bool) -> None:
    """Start versions and wait until requests reach them; to be called under `StopOnError`.

    Args:
        plan: Makes the plans, given the directory of log files.
        later: Others serve already.

    Raises:
        RuntimeError: As `start_servables`.
    """
    running = get_running()
    log_directory = Path.cwd() / _launch.LOG_DIRECTORY
    if running.versions is None:
        running.versions = RunningVersions(running.native, log_directory, running.interruption_check())
    plans = running.versions.take(plan(log_directory))
    running.take_signals()
    running.versions.start(plans, later=later)
    if running.monitor is None:
        running.started.add("servables")
        running.monitor = threading.Thread(target=_monitor, args=(running,), name="serving-monitor", daemon=False)
        running.monitor.start()


def stop() -> None:
    """Stop the gRPC and RESTful servers and all servables.

    Requests that were accepted are answered, for up to 10 seconds or what `set_stop_timeout` says. A signal meanwhile
    ends the waiting. Any thread may call it, also while another does: each call returns when the server has stopped.
    Does nothing when nothing runs. Afterwards everything can be started again.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.start_grpc_server("0.0.0.0:5500")
        >>> server.start_restful_server("0.0.0.0:1500")
        >>> ...
        >>> server.stop()
    """
    global _running, _stopping
    with _lock:
        if _running is not None:
            _running, _stopping = None, _running
        running = _stopping
    if running is None or running.pid != os.getpid():
        return
    running.end_watch()
    try:
        running.native.stop(_stop_timeout)  # waits for another thread that is in it
    finally:
        running.give_signals_back()
    running.join_threads()
    with _lock:
        if _stopping is running:
            _stopping = None


def set_stop_timeout(seconds: float) -> None:
    """Set how long requests that were accepted may take to be answered when the server stops, by `stop` or a signal, or
    when a version leaves. It holds for this process, also after `stop`.

    Args:
        seconds (float): From 0 to 86400; 10 unless set.

    Raises:
        RuntimeError: The value is invalid.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.set_stop_timeout(30)
    """
    global _stop_timeout
    _stop_timeout = _checks.check_seconds("seconds", seconds, 0.0, _MAX_STOP_TIMEOUT)


def running_versions(what: str) -> RunningVersions:
    """What runs, for the public function `what`; to be called under `start_lock`."""
    if not servables_run():
        raise RuntimeError(f"{what} needs a running server: call start_servables first")
    versions = get_running().versions
    if versions is None:
        raise RuntimeError(f"{what} was ended by a call of stop()")
    return versions


def stop_timeout() -> float:
    """What set_stop_timeout was told last, in seconds."""
    return _stop_timeout


def set_watch(watch: VersionWatch | None) -> None:
    """Start this watch in place of the one there is; to be called under `start_lock`."""
    running = get_running()
    running.end_watch()
    running.watch = watch
    if watch is not None:
        watch.start()


class StopOnError:
    """Starts are one at a time, and what one raises stops the whole server before the caller sees it, unless the call
    says otherwise."""

    stop_on_error = True

    def __enter__(self) -> StopOnError:
        start_lock.acquire()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None and self.stop_on_error:
                stop()
        finally:
            start_lock.release()


def _ended_by_stop(doing: str) -> RuntimeError:
    return RuntimeError(f"{doing} was ended by a call of stop()")


def get_running() -> _Running:
    """The server of this process; made if there is none. To be called under `start_lock`."""
    global _running
    with _lock:
        if _running is None or _running.pid != os.getpid():  # in a forked child the server is the parent's
            _running = _Running()
        return _running


def servables_run() -> bool:
    """Whether this process has started servables that run."""
    with _lock:
        return _running is not None and _running.pid == os.getpid() and "servables" in _running.started


def _io_threads() -> int:
    text = os.environ.get("MSSERVING_IO_THREADS")
    if text is None:
        return max(1, min(4, len(os.sched_getaffinity(0)) // 2))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_IO_THREADS):
        raise RuntimeError(
            f"Environment variable MSSERVING_IO_THREADS should be a number from 1 to {_MAX_IO_THREADS}, but is '{text}'"
        )
    return int(text)


def _worker_silence_seconds() -> float:
    """After how long without a sign of life a worker is killed and started again; 0: never."""
    text = os.environ.get("MSSERVING_WORKER_SILENCE_SECONDS", "30")
    if not (text.isascii() and text.isdigit() and len(text) <= 9):
        raise RuntimeError(
            "Environment variable MSSERVING_WORKER_SILENCE_SECONDS should be a whole number of seconds, 0 meaning "
            f"never, but is '{text}'"
        )
    return float(text)


def _monitor(running: _Running) -> None:
    """Keeps the script alive; stops the server after a signal or when it cannot go on."""
    global _running, _exit_code
    reason = ""
    while not reason:
        reason = running.native.wait(1.0)
    if reason == "stopped":
        return
    number = running.native.stop_requested()
    if not number:
        print(f"MindSpore Serving stops: {reason}", file=sys.stderr, flush=True)
        _exit_code = 1
    running.end_watch()
    running.native.stop(_stop_timeout)
    running.native.restore_signal_handlers()
    with _lock:
        if _running is not running:
            return  # the script is in stop() itself
        _running = None
    main = threading.main_thread()
    if running.previous_handlers and main.is_alive() and main.ident is not None:
        # The script goes on after start_servables(), say in a sleep. Nobody serves any more: end it in good order.
        to_main = signal.Signals(number or signal.SIGTERM)
        signal.pthread_kill(main.ident, to_main)  # once: a second one could come in a finally block of the user's


def _end_script(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_exit_code)


def _stop_at_exit() -> None:
    stop()
    if _exit_code:
        # Python has no other way to give the exit code once the script's last line has run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_code)


def _renew_locks() -> None:
    global _lock, start_lock
    _lock = threading.RLock()
    start_lock = threading.RLock()


atexit.register(_stop_at_exit)
os.register_at_fork(after_in_child=_renew_locks)  # a thread that a forked child does not have may have held them
