"""Starting the ranks of this machine."""

from __future__ import annotations

import atexit
import ipaddress
import os
import signal
import sys
import threading
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

from mindspore_serving._native import load_native
from mindspore_serving.server import _checks, _launch
from mindspore_serving.server.distributed._agent_files import check_agent_files
from mindspore_serving.server.distributed._launcher import Launcher, LauncherSettings, tell_of

if TYPE_CHECKING:
    from mindspore_serving.client import SSLConfig

_MAX_START_PORT = 65528

_exit_code = 0  # what the process ends with after a launcher's end that nobody asked for


def startup_agents(
    distributed_address: str,
    model_files: list[str] | tuple[str, ...] | list[list[str]] | tuple[tuple[str, ...], ...],
    group_config_files: list[str] | tuple[str, ...] | None = None,
    agent_start_port: int = 7000,
    agent_ip: str | None = None,
    rank_start: int | None = None,
    dec_key: bytes | None = None,
    dec_mode: str = "AES-GCM",
    *,
    ssl_config: SSLConfig | None = None,
) -> None:
    """Start all ranks of this machine, and wait until the distributed worker has taken them.

    The distributed worker tells which ranks there are (its rank table); those of this machine get one process each,
    which loads the model and connects to the worker. It may be started before or after this call. The processes'
    output goes to ``serving_logs`` in the current working directory. When the call returns, the script keeps running
    after its last line until SIGINT (Ctrl+C), SIGTERM, or the stop of the servable. When ranks or the distributed
    worker fail, the processes are started again as soon as the worker is back.

    Args:
        distributed_address (str): ``ip:port`` of the distributed worker, as given to `start_servable` there.
        model_files (Union[list[str], tuple[str]]): One model file for each rank of this machine, in the order of the
            ranks; absolute, or relative to the start-up script. A list of files instead of a file: the sub-graphs of
            the rank's model, as many for each rank.
        group_config_files (Union[list[str], tuple[str]], optional): One group configuration file for each rank of this
            machine, as MindSpore writes it for models with communication groups of their own; absolute, or relative
            to the start-up script. Default: None.
        agent_start_port (int, optional): The first of the ports that this machine opens for the ranks, 1 to 65528; a
            port that is taken is passed over. On a CPU the machine of rank 0 opens one for MindSpore's scheduler;
            connections to the distributed worker need none. Default: 7000.
        agent_ip (str, optional): The address under which ranks of other machines reach those of this one. None: the
            one in the rank table that is of this machine. Given together with `rank_start`. Default: None.
        rank_start (int, optional): The first rank of this machine; its ranks are those from this one on with the same
            server in the rank table. None: those of the address in the rank table that is of this machine. Given
            together with `agent_ip`. Default: None.
        dec_key (bytes, optional): The key that decrypts the models: 16, 24 or 32 bytes. Default: None.
        dec_mode (str, optional): How the models are encrypted: "AES-GCM" or "AES-CBC". Used with `dec_key` only.
            Default: "AES-GCM".
        ssl_config (client.SSLConfig, optional): How connections to the distributed worker are encrypted, if it was
            started with an ssl_config; None means not at all. Default: None.

    Raises:
        RuntimeError: The type or value of a parameter is invalid, a file cannot be read, there is no distributed
            worker after 60 seconds, this machine has no ranks or another number than there are files, or an agent
            fails; the text has the last lines of its log. No process is left.

    Examples:
        >>> from mindspore_serving.server import distributed
        >>>
        >>> model_files = [f"models/device{i}/matmul.mindir" for i in range(8)]
        >>> distributed.startup_agents("192.168.0.10:6200", model_files)
    """
    settings = check_settings(
        distributed_address,
        model_files,
        group_config_files,
        agent_start_port,
        agent_ip,
        rank_start,
        dec_key,
        dec_mode,
        ssl_config,
    )
    signals = _Signals()
    launcher = Launcher(settings, Path.cwd() / _launch.LOG_DIRECTORY, signals.seen)
    launcher.start()
    try:
        launcher.wait_registered()
    except BaseException:
        launcher.stop()
        launcher.join()
        signals.give_back()
        raise
    threading.Thread(target=_monitor, args=(launcher, signals), name="serving-agents-monitor", daemon=False).start()


def check_settings(
    distributed_address: object,
    model_files: object,
    group_config_files: object,
    agent_start_port: object,
    agent_ip: object,
    rank_start: object,
    dec_key: object,
    dec_mode: object,
    ssl_config: object,
) -> LauncherSettings:
    """The checks of `startup_agents`."""
    address = _checks.check_str("distributed_address", distributed_address)
    _checks.check_ip_address(address, "distributed_address")
    port = _checks.check_int("agent_start_port", agent_start_port, 1, _MAX_START_PORT)
    if (agent_ip is None) != (rank_start is None):
        raise RuntimeError(
            "Parameter 'agent_ip' and parameter 'rank_start' must have values at the same time, or both None at the "
            f"same time, but agent_ip is {agent_ip!r} and rank_start is {rank_start!r}"
        )
    ip = None if agent_ip is None else _check_ip("agent_ip", agent_ip)
    start = None if rank_start is None else _checks.check_int("rank_start", rank_start)
    key, mode = _checks.check_decryption(dec_key, dec_mode)
    tls = None if ssl_config is None else _check_ssl_config(ssl_config)
    return LauncherSettings(
        address,
        check_agent_files(model_files, group_config_files),
        port,
        ip,
        start,
        key,
        mode,
        certificate=None if tls is None else _absolute(tls.certificate),
        private_key=None if tls is None else _absolute(tls.private_key),
        custom_ca=None if tls is None else _absolute(tls.custom_ca),
        use_tls=tls is not None,
    )


def _check_ip(name: str, value: object) -> str:
    text = _checks.check_str(name, value)
    try:
        ipaddress.ip_address(text)
    except ValueError:
        raise RuntimeError(
            f"Parameter '{name}' should be an ip address, such as '192.168.0.12', but {text!r} was given"
        ) from None
    return text


def _check_ssl_config(value: object) -> SSLConfig:
    from mindspore_serving.client import SSLConfig  # brings grpcio along, which nothing else here needs

    if not isinstance(value, SSLConfig):
        raise RuntimeError(
            "Parameter 'ssl_config' should be mindspore_serving.client.SSLConfig or None, as agents are clients of "
            f"the distributed worker, but a {type(value).__name__} was given"
        )
    return value


def _absolute(path: str | None) -> str | None:
    return None if path is None else str(Path(path).absolute())


class _Signals:
    """SIGINT and SIGTERM end the agents from now on, whatever the main thread does."""

    def __init__(self) -> None:
        self._server = cast(Any, load_native("_core")).Server
        self.previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self.previous[number] = signal.signal(number, _end_script)
        self._server.install_signal_handlers()

    def seen(self) -> int:
        """The signal that has come, or 0."""
        return int(self._server.stop_requested())

    def give_back(self) -> None:
        """As it was before, as far as this thread may."""
        self._server.restore_signal_handlers()
        if threading.current_thread() is threading.main_thread():
            for number, handler in self.previous.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _monitor(launcher: Launcher, signals: _Signals) -> None:
    """Keeps the script alive as long as the launcher lives, then ends it."""
    global _exit_code
    launcher.join()
    number = signals.seen()
    if not number:
        tell_of(launcher)
    if launcher.failed:
        _exit_code = 1
    signals.give_back()
    main = threading.main_thread()
    if signals.previous and main.is_alive() and main.ident is not None:
        # The script goes on after startup_agents(), say in a sleep. There is nothing left to wait for.
        to_main = signal.Signals(number or signal.SIGTERM)
        signal.pthread_kill(main.ident, to_main)  # once: a second one could come in a finally block of the user's


def _end_script(_number: int, _frame: FrameType | None) -> None:
    sys.exit(_exit_code)


def _tell_exit_code() -> None:
    if _exit_code:
        # Python has no other way to give the exit code once the script's last line has run.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(_exit_code)


atexit.register(_tell_exit_code)
