"""Checked requests to a distributed servable from several threads: every one is answered, and none of them wrongly."""

import threading
import time
from collections import Counter, deque
from collections.abc import Callable

import numpy as np

from export_rank_models import WEIGHT
from mindspore_serving.client import Client
from rank_servable import rows, wait_until

# What a client may be told while ranks are missing.
EXPECTED = ("rank", "not available", "servable is", "worker")


class RankLoad:
    """As a context manager. Request numbers come from one counter, so that no two have the same values.

    Args:
        address: The server's, for gRPC.
        threads: Each has one request at a time.
        pause: Seconds between a thread's requests.
        expected: The answer to rows of values.
    """

    def __init__(
        self,
        address: str,
        threads: int = 6,
        pause: float = 0.0,
        expected: Callable[[np.ndarray], np.ndarray] = lambda values: values @ WEIGHT,
    ) -> None:
        self._address = address
        self._pause = pause
        self._expected = expected
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self.errors: Counter[str] = Counter()
        self.unexpected: list[str] = []
        self.answered = 0  # rightly
        self._last_right: deque[float] = deque(maxlen=200)  # when they were begun
        self.longest = 0.0
        self._begun: dict[int, float] = {}
        self._threads = [threading.Thread(target=self._run, args=(number,), daemon=True) for number in range(threads)]

    def __enter__(self) -> "RankLoad":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request was never answered"

    def answered_since(self, moment: float) -> bool:
        """Whether a request that was begun after a moment has been answered, and rightly."""
        with self._lock:
            return any(begun > moment for begun in self._last_right)

    def wait_for_answer(self, moment: float, seconds: float, logs: Callable[[], str]) -> float:
        """Until requests that were begun after a moment are answered; how long after the moment that was."""
        wait_until(lambda: self.answered_since(moment), seconds, logs)
        return time.monotonic() - moment

    def waiting(self) -> float:
        """For how long the oldest request that has no answer has waited."""
        with self._lock:
            return max((time.monotonic() - begun for begun in self._begun.values()), default=0.0)

    def check(self) -> None:
        assert not self.unexpected, self.unexpected[:5]

    def _run(self, number: int) -> None:
        client = Client(self._address, "ranks", "predict")
        seed = number
        while not self._stop.is_set():
            seed += 1000
            values = rows(1 + seed % 3, seed)
            begun = time.monotonic()
            with self._lock:
                self._begun[number] = begun
            problem = ""
            try:
                replies = client.infer([{"x": row} for row in values])
                if isinstance(replies, dict):
                    problem = str(replies["error"])
                elif errors := [str(reply["error"]) for reply in replies if "error" in reply]:
                    problem = errors[0]
                elif not np.allclose([reply["y"] for reply in replies], self._expected(values), rtol=1e-4, atol=1e-4):
                    with self._lock:
                        self.unexpected.append(f"wrong answer to request {seed}")
            except Exception as error:
                problem = f"{type(error).__name__}: {error}"
            ended = time.monotonic()
            with self._lock:
                del self._begun[number]
                self.longest = max(self.longest, ended - begun)
                if not problem:
                    self.answered += 1
                    self._last_right.append(begun)
                else:
                    self.errors[problem[:200]] += 1
                    if not any(word in problem for word in EXPECTED):
                        self.unexpected.append(problem)
            time.sleep(max(self._pause, 0.05 if problem else 0.0))
