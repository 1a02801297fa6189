"""Limits of the running server."""

from mindspore_serving.server._server import (
    set_max_bytes_in_flight,
    set_max_enqueued_requests,
    set_max_queue_seconds,
)

__all__ = ["set_max_bytes_in_flight", "set_max_enqueued_requests", "set_max_queue_seconds"]
