"""Limits of the running server."""

from mindspore_serving.server import _checks, _server

__all__ = ["set_max_bytes_in_flight", "set_max_enqueued_requests", "set_max_queue_seconds"]


def set_max_enqueued_requests(max_enqueued_requests: int) -> None:
    """Set how many requests may wait or run in the running server; more are refused.

    A request that its client has cancelled, or whose deadline has passed, does not count.

    Args:
        max_enqueued_requests (int): 1 or larger; a new server starts with 10000.

    Raises:
        RuntimeError: The value is invalid.
    """
    _checks.check_int("max_enqueued_requests", max_enqueued_requests, 1)
    with _server.start_lock:
        _server.get_running().native.set_max_enqueued_requests(max_enqueued_requests)


def set_max_queue_seconds(seconds: float) -> None:
    """Set how long a request may have to wait for its worker in the running server; others are refused at once.

    The server knows what waits and how fast the workers have been of late. Without this limit it refuses by the number
    of waiting requests, and those whose deadline would pass while they wait.

    Args:
        seconds (float): From 0 to 86400; 0 means no limit, which is what a new server starts with.

    Raises:
        RuntimeError: The value is invalid.

    Examples:
        >>> from mindspore_serving.server.master import context
        >>>
        >>> context.set_max_queue_seconds(0.5)
    """
    checked = _checks.check_seconds("seconds", seconds, 0, 86400)
    with _server.start_lock:
        _server.get_running().native.set_max_queue_seconds(checked)


def set_max_bytes_in_flight(max_bytes_in_flight: int) -> None:
    """Set how much memory requests and replies may hold together in the running server; more requests are refused.

    What counts: messages being received or worked on, their tensors in shared memory, and replies until they are sent.
    A request counts twice while it is worked on, as its message and as its tensors.

    Args:
        max_bytes_in_flight (int): Bytes, 1048576 or larger; a new server starts with 4294967296.

    Raises:
        RuntimeError: The value is invalid.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.master.context.set_max_bytes_in_flight(512 << 20)
    """
    _checks.check_int("max_bytes_in_flight", max_bytes_in_flight, 1 << 20, (1 << 63) - 1)
    with _server.start_lock:
        _server.get_running().native.set_max_bytes_in_flight(max_bytes_in_flight)
