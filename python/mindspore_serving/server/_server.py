"""The process's one server: starting, waiting and stopping. Everything that serves is native; nothing here runs a
user's servable."""

from __future__ import annotations

import _thread
import atexit
import os
import signal
import sys
import threading
import warnings
from pathlib import Path
from types import FrameType, TracebackType
from typing import TYPE_CHECKING, Any, cast

from mindspore_serving._native import load_native
from mindspore_serving.server import _checks, _launch
from mindspore_serving.server._limits import ServerLimits, native_limits
from mindspore_serving.server._servable_config import ServableStartConfig
from mindspore_serving.server._ssl import SSLConfig

if TYPE_CHECKING:
    from mindspore_serving._core import Server as NativeServer

DRAIN_SECONDS = 10.0
_POLL_SECONDS = 0.1
_STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_STARTS = {"servables": "start_servables", "grpc": "start_grpc_server", "restful": "start_restful_server"}


class _Running:
    """A native server and what this process has changed for it. At most one runs."""

    def __init__(self) -> None:
        core = cast(Any, load_native("_core"))
        self.native: NativeServer = core.Server(_io_threads(), _worker_silence_seconds())
        self.pid = os.getpid()
        self.started: set[str] = set()
        self.previous_handlers: dict[signal.Signals, Any] = {}
        self.monitor: threading.Thread | None = None

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


_start_lock = (
    threading.RLock()
)  # one start call at a time; held while waiting, so taken before _lock and never by stop()
_lock = threading.Lock()  # guards which server is the running one
_running: _Running | None = None
_exit_code = 0  # what the process ends with after a stop that nobody asked for


def start_servables(
    servable_configs: ServableStartConfig | list[ServableStartConfig] | tuple[ServableStartConfig, ...],
    enable_lite: bool = False,
) -> None:
    """Start one or more servables and wait until they are ready.

    Every servable version gets one worker process for each of its devices. The processes' output goes to
    ``serving_logs`` in the current working directory. When the call returns, all of them are ready, and the script
    keeps running after its last line until SIGINT (Ctrl+C), SIGTERM or `stop`.

    Args:
        servable_configs (Union[ServableStartConfig, list[ServableStartConfig], tuple[ServableStartConfig]]): What to
            start. Configs of the same servable and version are merged.
        enable_lite (bool, optional): Taken for scripts that ran their models with MindSpore Lite. MindSpore runs them
            here, which a warning says when it is True. Default: False.

    Raises:
        RuntimeError: A servable could not be started; the text carries the reason with the file and line of the
            user's own code where there is one. Everything that was running has been stopped.

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
    with StopOnError():
        configs = _launch.check_configs(servable_configs)
        if _checks.check_bool("enable_lite", enable_lite):
            warnings.warn("enable_lite has no effect: MindSpore runs the models, not MindSpore Lite", stacklevel=2)
        running = _begin("servables")
        log_directory = Path.cwd() / _launch.LOG_DIRECTORY
        plans = _launch.plan_servables(configs, log_directory)
        try:
            log_directory.mkdir(exist_ok=True)
        except OSError as error:
            raise RuntimeError(f"The log directory '{log_directory}' cannot be made: {error}") from error
        running.take_signals()
        command, environment = _launch.worker_command(), _launch.worker_environment()
        for plan in plans:
            workers = [(worker.label, worker.config_json, worker.log_file) for worker in plan.workers]
            running.native.add_servable(
                plan.name, plan.version, workers, command, list(environment.items()), plan.dec_key
            )
        _wait_ready(running)
        running.monitor = threading.Thread(target=_monitor, args=(running,), name="serving-monitor", daemon=False)
        running.monitor.start()


def start_grpc_server(
    address: str,
    max_msg_mb_size: int = 100,
    ssl_config: SSLConfig | None = None,
    *,
    limits: ServerLimits | None = None,
) -> None:
    """Start the gRPC server. Servables may be started before or after it.

    A script that starts no servables ends, and stops the server, after its last line.

    Args:
        address (str): ``ip:port``, or ``unix:path`` with the path of a Unix domain socket, whose directory must exist.
        max_msg_mb_size (int, optional): The largest message taken or sent, in MiB, 1 to 512. Default: 100.
        ssl_config (SSLConfig, optional): How connections are encrypted; None means not at all. Default: None.
        limits (ServerLimits, optional): Connections, time-outs and the like; None means the defaults. Default: None.

    Raises:
        RuntimeError: A parameter is invalid, the address cannot be listened on, or the server is already running.
            Everything that was running has been stopped.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.start_grpc_server("0.0.0.0:5500")
    """
    with StopOnError():
        _checks.check_str("address", address)
        if address.startswith("unix:"):
            _check_unix_address(address)
        else:
            _checks.check_ip_address(address)
        native = _begin_endpoint("grpc", max_msg_mb_size, ssl_config, limits)
        native.start_grpc(address, max_msg_mb_size, *_ssl_arguments(ssl_config), native_limits(limits))
        print(f"Serving gRPC server start success, listening on {address}", flush=True)


def start_restful_server(
    address: str,
    max_msg_mb_size: int = 100,
    ssl_config: SSLConfig | None = None,
    *,
    limits: ServerLimits | None = None,
) -> None:
    """Start the RESTful server. Servables may be started before or after it.

    A script that starts no servables ends, and stops the server, after its last line.

    Args:
        address (str): ``ip:port``.
        max_msg_mb_size (int, optional): The largest request body taken, in MiB, 1 to 512. Default: 100.
        ssl_config (SSLConfig, optional): How connections are encrypted; None means not at all. Default: None.
        limits (ServerLimits, optional): Connections, time-outs and the like; None means the defaults. Default: None.

    Raises:
        RuntimeError: A parameter is invalid, the address cannot be listened on, or the server is already running.
            Everything that was running has been stopped.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.start_restful_server("0.0.0.0:5900")
    """
    with StopOnError():
        _checks.check_str("address", address)
        if address.startswith("unix:"):
            raise RuntimeError(
                f"The address '{address}' is illegal: the RESTful server takes ip:port only, no unix socket"
            )
        _checks.check_ip_address(address)
        native = _begin_endpoint("restful", max_msg_mb_size, ssl_config, limits)
        native.start_restful(address, max_msg_mb_size, *_ssl_arguments(ssl_config), native_limits(limits))
        print(f"Serving RESTful server start success, listening on {address}", flush=True)


def stop() -> None:
    """Stop the gRPC and RESTful servers and all servables.

    Requests that are being worked on get up to ten seconds to finish. Does nothing when nothing runs. Afterwards
    everything can be started again.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.start_grpc_server("0.0.0.0:5500")
        >>> server.start_restful_server("0.0.0.0:1500")
        >>> ...
        >>> server.stop()
    """
    global _running
    with _lock:
        running, _running = _running, None
    if running is None or running.pid != os.getpid():
        return
    try:
        running.native.stop(DRAIN_SECONDS)
    finally:
        running.give_signals_back()
    if running.monitor is not None and running.monitor is not threading.current_thread():
        running.monitor.join()


def set_max_enqueued_requests(max_enqueued_requests: int) -> None:
    """Set how many requests may wait in the running server; more are refused.

    Args:
        max_enqueued_requests (int): 1 or larger; a new server starts with 10000.

    Raises:
        RuntimeError: The value is invalid.
    """
    _checks.check_int("max_enqueued_requests", max_enqueued_requests, 1)
    with _start_lock:
        _get_running().native.set_max_enqueued_requests(max_enqueued_requests)


def set_max_bytes_in_flight(max_bytes_in_flight: int) -> None:
    """Set how much memory requests and replies may hold together in the running server; more requests are refused.

    What counts: messages being received or worked on, their tensors in shared memory, and replies until they are sent.
    A request counts twice while it is worked on, as its message and as its tensors.

    Args:
        max_bytes_in_flight (int): Bytes, 1048576 or larger; a new server starts with 4294967296.

    Raises:
        RuntimeError: The value is invalid.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.master.context.set_max_bytes_in_flight(512 << 20)
    """
    _checks.check_int("max_bytes_in_flight", max_bytes_in_flight, 1 << 20, (1 << 63) - 1)
    with _start_lock:
        _get_running().native.set_max_bytes_in_flight(max_bytes_in_flight)


class StopOnError:
    """Whatever a start call raises, the whole server is stopped before the caller sees it. Starts are one at a time."""

    def __enter__(self) -> None:
        _start_lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if error is not None:
                stop()
        finally:
            _start_lock.release()


def _get_running() -> _Running:
    global _running
    with _lock:
        if _running is None or _running.pid != os.getpid():  # in a forked child the server is the parent's
            _running = _Running()
        return _running


def _begin(what: str) -> _Running:
    running = _get_running()
    if what in running.started:
        raise RuntimeError(f"{_STARTS[what]} has been called already and is running: call stop() before starting again")
    running.started.add(what)
    return running


def _begin_endpoint(what: str, max_msg_mb_size: object, ssl_config: object, limits: object) -> NativeServer:
    _checks.check_int("max_msg_mb_size", max_msg_mb_size, 1, 512)
    if ssl_config is not None and not isinstance(ssl_config, SSLConfig):
        raise RuntimeError(
            f"Parameter 'ssl_config' should be SSLConfig or None, but a {type(ssl_config).__name__} was given"
        )
    if limits is not None and not isinstance(limits, ServerLimits):
        raise RuntimeError(
            f"Parameter 'limits' should be ServerLimits or None, but a {type(limits).__name__} was given"
        )
    return _begin(what).native


def _ssl_arguments(ssl_config: SSLConfig | None) -> tuple[str | None, str | None, str | None, bool]:
    if ssl_config is None:
        return None, None, None, False
    custom_ca = ssl_config.custom_ca if ssl_config.verify_client else None
    return ssl_config.certificate, ssl_config.private_key, custom_ca, ssl_config.verify_client


def _check_unix_address(address: str) -> None:
    path = address.removeprefix("unix:")
    if not path:
        raise RuntimeError(f"The address '{address}' is illegal: the path after 'unix:' is empty")
    directory = Path(path).absolute().parent
    if not directory.is_dir():
        raise RuntimeError(f"The address '{address}' is illegal: the directory '{directory}' does not exist")


def _io_threads() -> int:
    text = os.environ.get("MSSERVING_IO_THREADS")
    if text is None:
        return max(1, min(4, len(os.sched_getaffinity(0)) // 2))
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= 64):
        raise RuntimeError(
            f"Environment variable MSSERVING_IO_THREADS should be a number from 1 to 64, but is '{text}'"
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


def _wait_ready(running: _Running) -> None:
    while True:
        failure = running.native.wait_ready(_POLL_SECONDS)
        if _running is not running:
            raise RuntimeError("Starting the servables was ended by a call of stop()")
        number = running.native.stop_requested()
        if number:
            raise RuntimeError(
                f"Starting the servables was interrupted by signal {signal.Signals(number).name}: all workers are "
                "stopped"
            )
        if failure is None:
            return
        if failure:
            raise RuntimeError(failure)


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
    running.native.stop(DRAIN_SECONDS)
    running.native.restore_signal_handlers()
    with _lock:
        if _running is not running:
            return  # the script is in stop() itself
        _running = None
    main = threading.main_thread()
    if running.previous_handlers and main.is_alive() and main.ident is not None:
        # The script goes on after start_servables(), say in a sleep. Nobody serves any more: end it in good order.
        to_main = signal.Signals(number or signal.SIGTERM)
        _thread.interrupt_main(to_main)
        signal.pthread_kill(main.ident, to_main)  # wakes it from a system call


def _end_script(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(_exit_code)


def _stop_at_exit() -> None:
    stop()
    if _exit_code:
        # Python has no other way to give the exit code once the script's last line has run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_code)


atexit.register(_stop_at_exit)
