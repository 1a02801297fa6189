"""What `startup_agents` leaves running: it starts this machine's ranks whenever the distributed worker asks for them,
and ends them with it.

One life of the ranks is one connection to the distributed worker: claim the ranks, start their processes when told to,
end them when the connection ends. Then the next one begins, until the worker or a signal says that there shall be none.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from mindspore_serving._native import load_native
from mindspore_serving.server import _launch
from mindspore_serving.server.distributed._agent_environment import (
    CPU,
    Cluster,
    agent_environment,
    device_type_here,
    scheduler_environment,
)
from mindspore_serving.server.distributed._agent_files import AgentFiles
from mindspore_serving.server.distributed._agent_group import AgentGroup
from mindspore_serving.server.distributed._agent_order import AgentOrder
from mindspore_serving.server.distributed._agent_process import ProcessPlan
from mindspore_serving.server.distributed._configuration import Configuration
from mindspore_serving.server.distributed._local_ranks import LocalRanks, ReservedPort, find_local_ranks, is_local
from mindspore_serving.server.distributed._rank_table import check_layout
from mindspore_serving.server.distributed._rank_table_file import RankTableFile

if TYPE_CHECKING:
    from mindspore_serving._core import LogFile, RankLauncher

_INFO, _WARNING = 1, 2
_CONNECT_SECONDS = 3.0  # of one try
_RETRY_SECONDS = 1.0
_FIRST_CONNECT_SECONDS = 60.0
_FIRST_REFUSAL_SECONDS = 10.0  # an earlier launcher's connection may not have been noticed to have ended
_EVENT_SECONDS = 0.3
_LEAVE_SECONDS = 5.0  # from an agent's death to the end of the connection
_GRACE_SECONDS = 2.0
_MAX_BUCKETS = 6
_BACK_OFF_SECONDS = (0.5, 1.0, 2.0, 4.0, 5.0)


@dataclass(frozen=True)
class LauncherSettings:
    """What `startup_agents` was given, checked."""

    address: str
    files: AgentFiles
    agent_start_port: int = 7000
    agent_ip: str | None = None
    rank_start: int | None = None
    dec_key: bytes | None = field(default=None, repr=False)
    dec_mode: str = "AES-GCM"
    certificate: str | None = None
    private_key: str | None = None
    custom_ca: str | None = None
    use_tls: bool = False

    @property
    def tls(self) -> tuple[str | None, str | None, str | None, bool]:
        """What connections to the worker are made with."""
        return self.certificate, self.private_key, self.custom_ca, self.use_tls


class Stopped(Exception):
    """The worker or a signal ends it all; the text says which."""


class _Again(Exception):
    """This life is over; the text says why."""


def _connect(settings: LauncherSettings) -> RankLauncher:
    core = cast(Any, load_native("_core"))
    return cast("RankLauncher", core.RankLauncher(settings.address, *settings.tls))


def agent_command() -> list[str]:
    """The command of an agent process, to which the number of its socket is appended."""
    return [*_launch.worker_command()[:-1], "mindspore_serving.worker.agent"]


class Launcher:
    """Runs in a thread of its own: `start`, then `wait_registered`.

    Args:
        settings: What to start.
        log_directory: Where the processes' logs go.
        stop_signal: The number of the signal that asked to stop, 0 until then.
        connect: Makes a connection to the distributed worker, not yet connected.
        command: What an agent process runs.
    """

    def __init__(
        self,
        settings: LauncherSettings,
        log_directory: Path,
        stop_signal: Callable[[], int],
        connect: Callable[[LauncherSettings], RankLauncher] = _connect,
        command: Callable[[], list[str]] = agent_command,
    ) -> None:
        self._settings = settings
        self._log_directory = log_directory
        self._stop_signal = stop_signal
        self._connect = connect
        self._command = command
        self._logs: dict[str, LogFile] = {}
        self._port: ReservedPort | None = None  # of MindSpore's scheduler, in this life
        self._changed = threading.Condition()  # guards what follows
        self._registered = False  # in any life so far
        self._life_registered = False
        self._death: str | None = None  # of the first process that died in this life
        self._end: BaseException | None = None
        self._stop_asked = False
        self._failed_lives = 0
        self._seen_at = time.monotonic()  # the worker, or the launcher's begin
        self._refused_since: float | None = None
        self._told = ""  # what was wrong here in the life before
        self._thread = threading.Thread(target=self._run, name="serving-launcher", daemon=False)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """End the agents, then the launcher; any thread."""
        with self._changed:
            self._stop_asked = True
            self._changed.notify_all()

    def join(self) -> None:
        """Wait until nothing is left of it."""
        self._thread.join()

    @property
    def failed(self) -> bool:
        """Whether it has ended, and nobody asked for that."""
        return self._end is not None and not isinstance(self._end, Stopped)

    @property
    def stopped(self) -> str:
        """Why it has ended; "" while it runs."""
        return "" if self._end is None or self._thread.is_alive() else str(self._end)

    def wait_registered(self) -> None:
        """Wait until the distributed worker has taken all agents of this machine.

        Raises:
            RuntimeError: They could not be started, or were stopped.
        """
        with self._changed:
            while not self._registered and self._end is None:
                self._changed.wait(_EVENT_SECONDS)
            if self._registered:
                return
        self._thread.join()
        raise RuntimeError(str(self._end)) from None

    # ---- the launcher's thread

    def _run(self) -> None:
        end: BaseException = Stopped("the launcher has ended")
        try:
            while True:
                try:
                    self._live()
                except _Again as again:
                    self._failed(str(again))
                except (RuntimeError, OSError) as error:
                    if not self._registered:
                        raise
                    # Say a rank table that has changed, or too many open files: it may change again.
                    self._failed(str(error), wrong_here=True)
        except (Stopped, RuntimeError) as error:
            end = error
        except OSError as error:
            end = RuntimeError(f"The agents cannot be started: {error}")
        except BaseException as error:
            end = RuntimeError(f"The launcher of the agents has failed: {type(error).__name__}: {error}")
            raise
        finally:
            self._logs.clear()
            with self._changed:
                self._end = end
                self._changed.notify_all()

    def _live(self) -> None:
        """One life.

        Raises:
            Stopped: There shall be no other.
            RuntimeError, OSError: Something is wrong here. In the first life it is taken for a reason that stays.
            _Again: It is over.
        """
        with self._changed:
            self._life_registered = False
            self._death = None
        client = self._connect(self._settings)
        try:
            configuration = self._receive_configuration(client)
            local, cluster = self._plan(configuration)
            with RankTableFile(configuration, cluster) as cluster:
                client.claim([rank.rank_id for rank in local.ranks], local.ip, self._own_scheduler(local, cluster))
                launch = self._wait_launch(client)
                self._log(_INFO, f"The distributed worker at {self._settings.address} has all ranks: starting agents")
                self._run_agents(client, configuration, local, launch, cluster)
        except ConnectionError as error:
            raise _Again(str(error)) from None
        finally:
            client.close()
            if self._port is not None:
                self._port.release()
                self._port = None

    def _receive_configuration(self, client: RankLauncher) -> Configuration:
        self._check_stopped()
        try:
            content = client.connect(_CONNECT_SECONDS)
        except RuntimeError as error:
            raise RuntimeError(f"The agents cannot be started with this ssl_config: {error}") from error
        self._seen_at = time.monotonic()
        return Configuration.from_json(content)

    def _plan(self, configuration: Configuration) -> tuple[LocalRanks, Cluster]:
        settings = self._settings
        device_type = device_type_here(configuration.device_type)
        table = configuration.rank_table
        check_layout(table, configuration.rank_size, configuration.stage_size, ascend=device_type != CPU)
        local = find_local_ranks(table, settings.agent_ip, settings.rank_start)
        settings.files.check_count(len(local.ranks))
        if device_type == CPU and not is_local(local.ip):  # the table's are found by this; agent_ip is just given
            raise RuntimeError(
                f"Parameter 'agent_ip' should be an address of this machine, on which its ranks listen, but "
                f"{local.ip!r} is none"
            )
        scheduler = None
        if device_type == CPU and local.ranks[0].rank_id == 0:
            self._port = ReservedPort(local.ip, settings.agent_start_port)
            scheduler = f"[{local.ip}]:{self._port.port}" if ":" in local.ip else f"{local.ip}:{self._port.port}"
        return local, Cluster(device_type, configuration.rank_size, scheduler)

    @staticmethod
    def _own_scheduler(local: LocalRanks, cluster: Cluster) -> str | None:
        return cluster.scheduler if local.ranks[0].rank_id == 0 else None

    def _wait_launch(self, client: RankLauncher) -> dict[str, Any]:
        while True:
            self._check_stopped()
            event = client.next_event(_EVENT_SECONDS)
            if event is None:
                continue
            kind, text = event
            if kind == "launch":
                self._refused_since = None
                return cast(dict[str, Any], json.loads(text))
            self._take_end(kind, text)

    def _take_end(self, kind: str, text: str) -> None:
        if kind == "stop":
            raise Stopped(f"The distributed servable has been stopped: {text}")
        if kind == "refused":
            self._refused_since = self._refused_since or time.monotonic()
            if not self._registered and time.monotonic() - self._refused_since >= _FIRST_REFUSAL_SECONDS:
                raise RuntimeError(f"The distributed worker at {self._settings.address} refuses the agents: {text}")
            raise _Again(f"the distributed worker refuses the agents: {text}")

    def _run_agents(
        self,
        client: RankLauncher,
        configuration: Configuration,
        local: LocalRanks,
        launch: dict[str, Any],
        cluster: Cluster,
    ) -> None:
        cluster = Cluster(cluster.device_type, cluster.rank_size, launch["scheduler"] or None, cluster.rank_table_file)
        plans = self._process_plans(configuration, local, str(launch["token"]), cluster)

        def on_death(rank: int, text: str) -> None:
            with self._changed:
                first_death = self._death is None
                self._death = self._death or text
                self._changed.notify_all()
            if first_death:
                with suppress(ConnectionError, RuntimeError):  # the worker knows already that something has happened
                    client.agent_died(rank, text)

        group = AgentGroup(plans, self._settings.dec_key, self._on_registered, on_death)
        grace = 0.0
        try:
            self._follow(client, group)
        except Stopped:
            grace = _GRACE_SECONDS
            raise
        except ConnectionError:
            grace = _GRACE_SECONDS / 2  # agents leave when their own connections end
            raise
        finally:
            group.end(grace)
            group.join()

    def _follow(self, client: RankLauncher, group: AgentGroup) -> None:
        """Until this life ends, always by an exception."""
        leave_at: float | None = None
        while True:
            self._check_stopped()
            event = client.next_event(_EVENT_SECONDS)
            if event is not None and event[0] == "log wanted":
                client.log_lines(int(event[1]), group.last_lines(int(event[1])))
            elif event is not None:
                self._take_end(*event)
            with self._changed:
                dead = self._death is not None
            if not dead:
                continue
            leave_at = leave_at or time.monotonic() + _LEAVE_SECONDS
            if time.monotonic() > leave_at:
                raise _Again("the distributed worker has not ended after an agent's death")

    def _on_registered(self) -> None:
        with self._changed:
            if self._death is not None:
                return
            self._registered = self._life_registered = True
            self._failed_lives = 0
            self._changed.notify_all()
        self._log(_INFO, "All agents of this machine have registered")

    def _process_plans(
        self, configuration: Configuration, local: LocalRanks, token: str, cluster: Cluster
    ) -> list[ProcessPlan]:
        settings, files, base = self._settings, self._settings.files, _launch.worker_environment()
        plans = []
        if self._own_scheduler(local, cluster) is not None:
            order = AgentOrder(None, cluster.device_type)
            log = self._log_of("scheduler")
            title = "MindSpore's scheduler, which the machine of rank 0 runs,"
            environment = scheduler_environment(base, cluster)
            plans.append(ProcessPlan(title, 0, self._command(), environment, order.to_bytes(None), log, agent=False))
        threads = max(1, len(os.sched_getaffinity(0)) // len(local.ranks))
        for i, rank in enumerate(local.ranks):
            group_file = files.groups[i] if files.groups else None
            order = AgentOrder(
                rank=rank.rank_id,
                device_type=cluster.device_type,
                device_id=0 if cluster.device_type == CPU else rank.device_id,
                models=tuple(str(file) for file in files.models[i]),
                dec_mode=None if settings.dec_key is None else settings.dec_mode,
                group_file=None if group_file is None else str(group_file),
                with_batch_dim=configuration.with_batch_dim,
                without_batch_dim_inputs=configuration.without_batch_dim_inputs,
                kernel_threads=threads,
                # A later stage holds tensors of one shape, so that no stage before it may run with another batch size.
                max_buckets=_MAX_BUCKETS if configuration.stage_size == 1 else 1,
                address=settings.address,
                token=token,
                certificate=settings.certificate,
                private_key=settings.private_key,
                custom_ca=settings.custom_ca,
                use_tls=settings.use_tls,
            )
            environment = agent_environment(base, cluster, rank, local.ip, group_file)
            title, log = f"the agent of rank {rank.rank_id}", self._log_of(f"rank{rank.rank_id}")
            content = order.to_bytes(settings.dec_key)
            plans.append(ProcessPlan(title, rank.rank_id, self._command(), environment, content, log))
        return plans

    def _log_of(self, name: str) -> LogFile:
        log = self._logs.get(name)
        if log is None:
            core = cast(Any, load_native("_core"))
            self._log_directory.mkdir(exist_ok=True)
            log = self._logs[name] = core.LogFile(str(self._log_directory / f"log_agent_{name}.log"), False)
        return log

    # ---- between lives

    def _failed(self, reason: str, *, wrong_here: bool = False) -> None:
        """A life is over: say so, and wait a little before the next; or raise, if it was to be the first one.

        Args:
            reason: Why.
            wrong_here: It was neither the worker's doing nor an agent's. Said once for as long as it stays the same.
        """
        with self._changed:
            ever, death, this_life = self._registered, self._death, self._life_registered
        if not ever:
            if death is not None:
                raise RuntimeError(f"The agents cannot be started: {death}")
            if time.monotonic() - self._seen_at > _FIRST_CONNECT_SECONDS:
                raise RuntimeError(
                    f"The agents cannot be started: no distributed worker at {self._settings.address} after "
                    f"{_FIRST_CONNECT_SECONDS:.0f} seconds: {reason}"
                )
            self._sleep(_RETRY_SECONDS)
            return
        if this_life:
            self._log(_WARNING, f"The ranks of this machine have ended and will be started again: {death or reason}")
        elif death is not None or (wrong_here and reason != self._told):
            self._log(_WARNING, f"The ranks of this machine could not be started again: {death or reason}")
        self._told = reason if wrong_here else ""
        if death is not None or this_life:
            self._sleep(_BACK_OFF_SECONDS[min(self._failed_lives, len(_BACK_OFF_SECONDS) - 1)])
            self._failed_lives += 1
        else:
            self._sleep(_RETRY_SECONDS)

    def _sleep(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self._check_stopped()
            with self._changed:
                self._changed.wait(min(_EVENT_SECONDS, seconds))

    def _check_stopped(self) -> None:
        number = self._stop_signal()
        if number:
            raise Stopped(f"Starting the agents was interrupted by signal {number}: all agents are stopped")
        if self._stop_asked:
            raise Stopped("The launcher of the agents has been stopped")

    def _log(self, level: int, text: str) -> None:
        core = cast(Any, load_native("_core"))
        core.log(level, text)


def tell_of(launcher: Launcher) -> None:
    """Say on standard error why a launcher has ended."""
    print(f"MindSpore Serving agents stop: {launcher.stopped}", file=sys.stderr, flush=True)
