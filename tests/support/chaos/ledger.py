"""What was sent and what came of it; what was done to the server meanwhile, and which errors that explains."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

RIGHT = "right"
WRONG = "wrong"
UNANSWERED = "unanswered"
# Every other outcome is the kind of an error: those of csrc/base/error.h, and three of the transport's own.
NOT_CONNECTED = "not_connected"  # no connection, or the server said that it had not taken the request: send it again
CONNECTION_LOST = "connection_lost"  # the connection ended while the server had the request
ANYTHING = "*"  # every servable

SLACK_SECONDS = 1.0  # an error may be noticed a little before or after what caused it is noted
KEPT_ERRORS = 20_000  # before those that are explained are let go


@dataclass
class Window:
    """From `start` to `end` an error of one of `kinds` at `servable` is no surprise."""

    why: str
    servable: str
    kinds: frozenset[str]
    start: float
    end: float = float("inf")
    clients: str = ""  # only those whose name begins so

    def explains(self, error: "Error") -> bool:
        return (
            error.kind in self.kinds
            and self.servable in (ANYTHING, error.servable)
            and error.client.startswith(self.clients)
            and self.start - SLACK_SECONDS <= error.answered
            and error.sent <= self.end + SLACK_SECONDS
        )


@dataclass(frozen=True)
class Error:
    kind: str
    servable: str
    client: str
    sent: float
    answered: float
    text: str


@dataclass
class Ledger:
    """Any thread."""

    started: float = field(default_factory=time.monotonic)
    counts: Counter[str] = field(default_factory=Counter)
    by_client: Counter[str] = field(default_factory=Counter)
    errors: list[Error] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    slowest: float = 0.0  # of a right answer, in seconds
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def now(self) -> float:
        return time.monotonic() - self.started

    def note(self, text: str) -> None:
        line = f"{self.now():8.2f}  {text}"
        with self._lock:
            self.events.append(line)

    def record(self, client: str, servable: str, sent: float, kind: str, text: str = "") -> None:
        """One request's outcome; `sent` is on this ledger's clock."""
        now = self.now()
        with self._lock:
            self.counts[kind] += 1
            self.by_client[client] += 1
            if kind == RIGHT:
                self.slowest = max(self.slowest, now - sent)
            else:
                self.errors.append(Error(kind, servable, client, sent, now, text))
                if len(self.errors) % KEPT_ERRORS == 0:
                    self.errors = self._unexplained()  # a window's end never moves back before what it explains

    @property
    def sent(self) -> int:
        with self._lock:
            return self.counts.total()

    @contextmanager
    def window(self, why: str, servable: str, *kinds: str, clients: str = "") -> Iterator[Window]:
        """While the block runs. Its body returns when the server is whole again."""
        window = Window(why, servable, frozenset(kinds), self.now(), clients=clients)
        with self._lock:
            self.windows.append(window)
        self.note(f"begin: {why}")
        try:
            yield window
        finally:
            window.end = self.now()
            self.note(f"end:   {why} ({window.end - window.start:.2f} s)")

    def unexplained(self) -> list[Error]:
        """Wrong and missing answers, and errors that nothing which was done to the server accounts for."""
        with self._lock:
            return self._unexplained()

    def _unexplained(self) -> list[Error]:
        return [error for error in self.errors if not any(window.explains(error) for window in self.windows)]

    def summary(self) -> str:
        errors = {kind: count for kind, count in self.counts.items() if kind not in (RIGHT, WRONG, UNANSWERED)}
        lines = [
            f"sent {self.sent}, right {self.counts[RIGHT]}, errors {sum(errors.values())}, "
            f"unanswered {self.counts[UNANSWERED]}, wrong {self.counts[WRONG]}; slowest right {self.slowest:.2f} s",
            "errors by kind: " + (", ".join(f"{kind} {count}" for kind, count in sorted(errors.items())) or "none"),
            "by client: " + ", ".join(f"{client} {count}" for client, count in sorted(self.by_client.items())),
        ]
        return "\n".join(lines)

    def report(self) -> str:
        """Everything one needs to understand a failure: the events, and the first unexplained errors among them."""
        unexplained = [
            f"{e.sent:8.2f} - {e.answered:.2f}  {e.kind} at {e.servable} over {e.client}: {e.text}"
            for e in self.unexplained()
        ]
        return "\n".join(
            [self.summary(), "--- events", *self.events, f"--- {len(unexplained)} unexplained", *unexplained[:40]]
        )
