"""Distributed servables: one model that several processes, the ranks, run together, on one machine or many.

`declare_servable` in the servable's servable_config.py says how many ranks there are, `start_servable` starts the
serving side, and `startup_agents`, on every machine with ranks, starts those.
"""

from mindspore_serving.server.distributed._declare import declare_servable
from mindspore_serving.server.distributed._start import start_servable
from mindspore_serving.server.distributed._startup import startup_agents

__all__ = ["declare_servable", "start_servable", "startup_agents"]
