"""MindSpore Serving: put MindSpore models into production over gRPC and REST.

``mindspore_serving.server`` starts servables and their gRPC and RESTful servers, ``mindspore_serving.server.register``
is what a ``servable_config.py`` uses, ``mindspore_serving.client`` calls a server.
"""

__all__ = ["__version__"]

__version__: str


def __getattr__(name: str) -> str:
    if name != "__version__":
        raise AttributeError(f"module 'mindspore_serving' has no attribute '{name}'")
    from importlib import metadata  # takes longer than everything else a server imports, so only when asked

    try:
        return metadata.version("mindspore_serving")
    except metadata.PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
