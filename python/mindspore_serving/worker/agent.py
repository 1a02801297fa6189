"""``python -m mindspore_serving.worker.agent <descriptor>``: one rank of a distributed model, or MindSpore's scheduler
of its ranks on CPUs. Started by `distributed.startup_agents`, never by hand.

The life of an agent: take the order, connect to the distributed worker, join MindSpore's cluster, load the model's
files together with the other ranks, register, and run what the worker says until the connection ends.
"""

from __future__ import annotations

import faulthandler
import os
import signal
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn, cast

# "-m" puts the current directory first on the path, where any file could hide a module; "-P" prevents it.
if __name__ == "__main__" and not getattr(sys.flags, "safe_path", False) and sys.path and sys.path[0] == os.getcwd():
    del sys.path[0]

from mindspore_serving._native import load_native
from mindspore_serving.server.distributed._agent_order import REGISTERED, WORKER_GONE, AgentOrder

if TYPE_CHECKING:
    from mindspore_serving._core import AgentLink, RankAgent
    from mindspore_serving.worker.loaded_model import LoadedModel

_SCHEDULER_SECONDS = 300.0  # MindSpore's scheduler has to be imported, on a machine that imports many


def main(argv: list[str]) -> int:
    """Run an agent.

    Args:
        argv: The command line; its last part is the number of the descriptor of the socket to the launcher.

    Returns:
        The process's exit code.
    """
    if len(argv) != 2 or not argv[1].isdigit():
        print("mindspore_serving.worker.agent is started by distributed.startup_agents, not by hand", file=sys.stderr)
        return 2
    from mindspore_serving.worker.main import set_up_logging

    faulthandler.enable()  # a crash in native code leaves the Python stack in the log
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher ends its agents
    core = cast(Any, load_native("_core"))
    set_up_logging(core)
    link: AgentLink = core.AgentLink(int(argv[1]))
    order = AgentOrder.from_json(link.receive_order())
    if order.rank is None:
        _schedule(order)
    end = _serve(core, link, order)
    print(f"Rank {order.rank} ends: {end}", flush=True)
    # At once: MindSpore's own end waits for ranks that may be gone already.
    _leave(0 if end == "stopped" else WORKER_GONE)


def _schedule(order: AgentOrder) -> NoReturn:
    """MindSpore's scheduler: its init() returns when all ranks have left, if at all."""
    _join_cluster(order)
    _leave(0)


def _serve(core: Any, link: AgentLink, order: AgentOrder) -> str:
    from mindspore_serving.worker.mindspore_model import load_model
    from mindspore_serving.worker.rank_group import RankGroup

    # First of all: whatever this process is stuck in later, it is ended when this connection is.
    agent: RankAgent = core.RankAgent(
        order.address,
        order.certificate,
        order.private_key,
        order.custom_ca,
        order.use_tls,
        order.token,
        order.rank,
    )
    _join_cluster(order)
    _make_groups(order)
    group = RankGroup()
    models = [
        load_model(
            file,
            with_batch_dim=order.with_batch_dim,
            without_batch_dim_inputs=order.without_batch_dim_inputs,
            decrypt=None if order.dec_mode is None else partial(link.decrypt, mode=order.dec_mode),
            device_type=order.device_type,
            device_id=order.device_id,
            kernel_threads=order.kernel_threads,
            max_buckets=order.max_buckets,
            group=group,
        )
        for file in order.models
    ]
    link.forget_key()
    return run(agent, link, order, models)


def run(agent: RankAgent, link: AgentLink, order: AgentOrder, models: list[LoadedModel]) -> str:
    """Register loaded models and run them until the connection ends.

    Returns:
        "stopped", or what else has ended it.
    """
    from mindspore_serving.worker.servable_models import open_session

    sessions = []
    for model in models:
        sessions.append(open_session(agent, model, leave_when_spoilt=False))  # a failed run ends all ranks anyway
        sizes = f", batch sizes {model.batch_sizes}" if model.batch_sizes else ""
        print(f"Rank {order.rank}, process {os.getpid()}: {model.model_file} is run by {model.way}{sizes}", flush=True)
    agent.register([os.path.basename(file) for file in order.models], sessions)
    link.send(REGISTERED)
    return agent.run()


def _join_cluster(order: AgentOrder) -> None:
    from mindspore_serving.worker import _mindspore
    from mindspore_serving.worker.rank_group import wait_for_scheduler

    _mindspore.import_mindspore()
    _mindspore.set_device(order.device_type, order.device_id)
    if order.rank is not None and order.device_type == "CPU":
        host, port = os.environ["MS_SCHED_HOST"], int(os.environ["MS_SCHED_PORT"])
        wait_for_scheduler(host, port, _SCHEDULER_SECONDS)
    from mindspore.communication import init

    init()


def _make_groups(order: AgentOrder) -> None:
    """Make the communication groups of the group configuration file that this rank belongs to."""
    if order.group_file is None:
        return
    from mindspore.communication import create_group
    from mindspore.train.node_strategy_pb2 import ParallelGroupMap

    groups = ParallelGroupMap()
    try:
        with open(order.group_file, "rb") as file:
            groups.ParseFromString(file.read())
    except Exception as error:
        raise RuntimeError(f"The group configuration file '{order.group_file}' cannot be read: {error}") from error
    for item in groups.parallel_group_item:
        ranks = list(item.parallel_group_ranks.dim)
        if order.rank in ranks:
            create_group(item.group_name, ranks)


def _leave(code: int) -> NoReturn:
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except Exception:
        pass  # the launcher, which reads the log, is gone, or the user's code has put something else in their place
    os._exit(code)


def _main() -> NoReturn:
    """As `main`, but what fails ends the process at once: other ranks must not wait for one that has failed."""
    import traceback

    try:
        code = main(sys.argv)
    except ConnectionError as error:
        print(f"The agent ends: {error}", file=sys.stderr)
        code = WORKER_GONE
    except BaseException:
        traceback.print_exc()
        code = 1
    _leave(code)


if __name__ == "__main__":
    _main()
