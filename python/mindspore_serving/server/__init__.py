"""Start servables and the gRPC and RESTful servers through which clients reach them.

A servable is a directory with a ``servable_config.py``, which says what is done with a request
(``mindspore_serving.server.register``), and one directory with model files for each version.
"""

from mindspore_serving.server import distributed, master, register
from mindspore_serving.server._endpoints import start_grpc_server, start_restful_server
from mindspore_serving.server._limits import ServerLimits
from mindspore_serving.server._servable_config import ServableStartConfig
from mindspore_serving.server._server import (
    set_stop_timeout,
    start_servables,
    stop,
)
from mindspore_serving.server._ssl import SSLConfig
from mindspore_serving.server._version_calls import reload_servables, stop_servable, watch_versions

__all__ = [
    "SSLConfig",
    "ServableStartConfig",
    "ServerLimits",
    "distributed",
    "master",
    "register",
    "reload_servables",
    "set_stop_timeout",
    "start_grpc_server",
    "start_restful_server",
    "start_servables",
    "stop",
    "stop_servable",
    "watch_versions",
]
