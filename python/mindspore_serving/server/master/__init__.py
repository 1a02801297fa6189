"""Settings of the running server."""

from mindspore_serving.server.master import context

__all__ = ["context"]
