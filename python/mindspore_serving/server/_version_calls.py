"""What scripts call to let versions of a running server come and go."""

from __future__ import annotations

from mindspore_serving.server import _checks, _server
from mindspore_serving.server._version_watch import VersionWatch


def stop_servable(servable_name: str, version_number: int = 0) -> None:
    """Take one version of a servable out of the running server, and wait until it has gone.

    New requests for it are refused, those that were accepted are answered, its worker processes end. Other servables
    and versions go on.

    Args:
        servable_name (str): The servable.
        version_number (int, optional): The version, 1 or larger; 0 means the newest that runs. Default: 0.

    Raises:
        RuntimeError: A parameter is invalid, the version does not run, or the server was stopped meanwhile.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.stop_servable("add", 1)
    """
    _checks.check_str("servable_name", servable_name)
    _checks.check_int("version_number", version_number)
    with _server.start_lock:
        _server.running_versions("stop_servable").stop(servable_name, version_number, _server.stop_timeout())


def reload_servables() -> list[tuple[str, int]]:
    """Load the newest versions of servables that were started with ``version_number=0``, if they are newer than the
    running ones.

    Requests go to a new version once all its workers are ready; the old one then answers what it has and leaves. Copy a
    new version to a name that is no number and rename it, so that it is complete the moment it appears.

    Returns:
        list[tuple[str, int]], the names and version numbers that were loaded.

    Raises:
        RuntimeError: No servable was started, a new version cannot be loaded, or the server was stopped meanwhile. The
            old version of a servable whose new one cannot be loaded goes on; other servables are reloaded.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.reload_servables()
        [('add', 7)]
    """
    with _server.start_lock:
        return _server.running_versions("reload_servables").reload(_server.stop_timeout(), settled=False)


def watch_versions(interval_seconds: float = 10.0) -> None:
    """Look for newer versions from time to time, and load them as `reload_servables` does.

    A version is taken when two looks in a row find its files unchanged. One that cannot be loaded is logged, and tried
    again once its files have changed. The watch ends with the server.

    Args:
        interval_seconds (float, optional): The time between two looks, in seconds, from 0.1 to 86400; 0 ends the watch.
            Default: 10.

    Raises:
        RuntimeError: The parameter is invalid, or no servable was started.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> server.watch_versions(interval_seconds=30)
    """
    seconds = _checks.check_seconds("interval_seconds", interval_seconds, 0.0, 86_400.0)
    if 0 < seconds < 0.1:
        raise RuntimeError(f"Parameter 'interval_seconds' should be 0 or at least 0.1, but {seconds} was given")
    with _server.start_lock:
        versions = _server.running_versions("watch_versions")

        def look() -> None:
            versions.reload(_server.stop_timeout(), settled=True)

        _server.set_watch(
            VersionWatch(seconds, _server.start_lock, look, versions.check_interrupted) if seconds else None
        )
