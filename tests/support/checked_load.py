"""A load of requests whose every answer is checked and remembered with its times."""

import http.client
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from mindspore_serving.client import Client


class Sender(Protocol):
    def __call__(self) -> float: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Answer:
    begun: float
    ended: float
    value: float | None  # None: an error
    error: str = ""


@dataclass
class Load:
    """One thread for each of `senders`; each sends one request after the other until the end. A sender is made in its
    thread and returns the value that was answered; what it raises is an error of its request."""

    senders: Sequence[Callable[[], Sender]]
    answers: list[list[Answer]] = field(default_factory=list)

    def __enter__(self) -> "Load":
        self._end = threading.Event()
        self.answers = [[] for _ in self.senders]
        pairs = zip(self.senders, self.answers, strict=True)
        self._threads = [threading.Thread(target=self._run, args=pair, daemon=True) for pair in pairs]
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join(60)
            assert not thread.is_alive(), "a request was never answered"

    def all(self) -> list[Answer]:
        return sorted((one for list_ in self.answers for one in list_), key=lambda one: one.begun)

    def errors(self) -> list[str]:
        return [one.error for one in self.all() if one.value is None]

    def wait_for(self, more: int, timeout: float = 60) -> None:
        """Until every sender has `more` further answers."""
        targets = [len(list_) + more for list_ in self.answers]
        deadline = time.monotonic() + timeout
        while any(len(list_) < target for list_, target in zip(self.answers, targets, strict=True)):
            assert time.monotonic() < deadline, f"no answers any more; the last errors: {self.errors()[-3:]}"
            time.sleep(0.01)

    def _run(self, make: Callable[[], Sender], answers: list[Answer]) -> None:
        send = make()
        while not self._end.is_set():
            begun = time.monotonic()
            try:
                answer = Answer(begun, 0, send())
            except Exception as error:
                answer = Answer(begun, 0, None, f"{type(error).__name__}: {error}")
            answers.append(Answer(begun, time.monotonic(), answer.value, answer.error))
            if answer.value is None:
                time.sleep(0.01)
        send.close()


def assert_switches_once(load: Load, before: float, after: float) -> None:
    """No error, no other value, and no `before` in answer to a request that was begun once an `after` had arrived."""
    assert load.errors() == []
    answers = load.all()
    assert {one.value for one in answers} == {before, after}
    switched = min(one.ended for one in answers if one.value == after)
    late = [one for one in answers if one.value == before and one.begun > switched]
    assert not late, f"{len(late)} answers of the old version after the first of the new one"


class GrpcSender:
    """Requests of one instance over gRPC; `instance` is {"x": 0.0} unless given (lists are sent as float32 arrays). The
    answer is the first number of the output y."""

    def __init__(self, address: str, servable: str, method: str, version: int, instance: Mapping[str, object]) -> None:
        self._client = Client(address, servable, method, version_number=version)
        self._instance = {
            name: np.array(one, np.float32) if isinstance(one, list) else one for name, one in instance.items()
        }

    def __call__(self) -> float:
        reply = self._client.infer([self._instance])
        if isinstance(reply, dict) or "error" in reply[0]:
            raise RuntimeError(str(reply))
        return float(reply[0]["y"].flat[0])

    def close(self) -> None:
        self._client.channel.close()


class RestSender:
    """The same over REST, on one connection that is kept."""

    def __init__(self, address: str, servable: str, method: str, version: int, instance: Mapping[str, object]) -> None:
        host, _, port = address.rpartition(":")
        self._connection = http.client.HTTPConnection(host, int(port), timeout=60)
        self._body = json.dumps({"instances": [instance]})
        self._path = f"/model/{servable}{f'/version/{version}' if version else ''}:{method}"

    def __call__(self) -> float:
        try:
            self._connection.request("POST", self._path, self._body, {"Content-Type": "application/json"})
            reply = self._connection.getresponse()
            text = reply.read()
        except BaseException:
            self.close()
            raise
        if reply.status != 200:
            raise RuntimeError(f"{reply.status}: {text.decode(errors='replace')}")
        value = json.loads(text)["instances"][0]["y"]
        while isinstance(value, list):
            value = value[0]
        return float(value)

    def close(self) -> None:
        self._connection.close()


def grpc_sender(
    address: str, servable: str = "numbers", method: str = "answer", version: int = 0, **instance: object
) -> Callable[[], Sender]:
    return lambda: GrpcSender(address, servable, method, version, instance or {"x": 0.0})


def rest_sender(
    address: str, servable: str = "numbers", method: str = "answer", version: int = 0, **instance: object
) -> Callable[[], Sender]:
    return lambda: RestSender(address, servable, method, version, instance or {"x": 0.0})


def ask_once(make: Callable[[], Sender]) -> float:
    sender = make()
    try:
        return sender()
    finally:
        sender.close()
