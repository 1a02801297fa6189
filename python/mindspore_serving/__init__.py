"""MindSpore Serving: put MindSpore models into production over gRPC and REST.

``mindspore_serving.server`` starts servables and their gRPC and RESTful servers, ``mindspore_serving.server.register``
is what a ``servable_config.py`` uses, ``mindspore_serving.client`` calls a server.
"""

from importlib import metadata as _metadata

__all__ = ["__version__"]

try:
    __version__: str = _metadata.version("mindspore_serving")
except _metadata.PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"
