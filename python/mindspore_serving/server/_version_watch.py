"""The thread that looks for new versions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, cast

from mindspore_serving._native import load_native

_LOG_ERROR = 3
_LOCK_SECONDS = 0.1


class VersionWatch(threading.Thread):
    """Calls `look` again and again until it is ended or the server stops. A failure of `look` does not end
    it, and is logged when it is not the one of the look before.

    Args:
        interval_seconds: The time between two looks.
        lock: Held while looking. Whoever ends the watch may hold it.
        look: What to do.
        check_interrupted: Raises when the server is stopped or stopping.
    """

    def __init__(
        self,
        interval_seconds: float,
        lock: threading.RLock,
        look: Callable[[], object],
        check_interrupted: Callable[[str], None],
    ) -> None:
        super().__init__(name="serving-watch", daemon=True)
        self._interval_seconds = interval_seconds
        self._lock = lock
        self._look = look
        self._check_interrupted = check_interrupted
        self._end = threading.Event()

    def end(self) -> None:
        """Ask it to end; returns at once."""
        self._end.set()

    def run(self) -> None:
        """The thread itself."""
        core = cast(Any, load_native("_core"))
        told = ""
        while not self._end.wait(self._interval_seconds):
            while not self._lock.acquire(timeout=_LOCK_SECONDS):
                if self._end.is_set():
                    return
            try:
                if not self._end.is_set():
                    self._look()
                told = ""
            except RuntimeError as error:
                if self._interrupted():
                    return
                if str(error) != told:
                    told = str(error)
                    core.log_event(_LOG_ERROR, "reload_failed", [("why", told)])
            finally:
                self._lock.release()

    def _interrupted(self) -> bool:
        try:
            self._check_interrupted("Watching versions")
        except RuntimeError:
            return True
        return False
