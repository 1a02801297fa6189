"""Distributed servables: one model that several processes, the ranks, run together."""

from mindspore_serving.server.distributed._declare import declare_servable

__all__ = ["declare_servable"]
