"""Clients of every kind, each a thread that sends checked requests until it is told to stop."""

import http.client
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass

import grpc
import numpy as np

from chaos.ledger import CONNECTION_LOST, NOT_CONNECTED, RIGHT, UNANSWERED, Ledger
from chaos.raw_client import RawClient
from chaos.requests import Request, decode, encode, from_json, json_body, judge, make_request

PATH = "/mindspore.serving.proto.MSService/Predict"
# Longer than anything that a fault makes a request wait for. Whoever waits longer is unanswered.
PATIENCE = 60.0
RETRY_SECONDS = 0.2  # of a client that found no server
OPTIONS = [
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),
    ("grpc.max_receive_message_length", -1),
]
STATUS_KINDS = {grpc.StatusCode.RESOURCE_EXHAUSTED: "overloaded", grpc.StatusCode.CANCELLED: "cancelled"}


@dataclass
class Traffic:
    """What the clients share. `pause` is between two requests of one client, in seconds."""

    grpc_address: str
    rest_address: str
    ledger: Ledger
    seed: int
    pause: float = 0.004
    stop: threading.Event = None  # type: ignore[assignment]

    def __post_init__(self) -> None:
        self.stop = threading.Event()
        self._threads: list[threading.Thread] = []
        self.failures: list[BaseException] = []

    def start(self, shares: dict[str, int]) -> None:
        """`shares`: how many clients of each kind."""
        for kind, count in shares.items():
            for number in range(count):
                name = f"{kind}-{number}"
                random = np.random.default_rng([self.seed, len(self._threads)])
                thread = threading.Thread(target=self._run, args=(KINDS[kind], name, random), name=name)
                self._threads.append(thread)
        for thread in self._threads:
            thread.start()

    def _run(self, client: Callable[..., None], name: str, random: np.random.Generator) -> None:
        try:
            client(self, name, random)
        except BaseException as error:  # a defect of the test: told by join()
            self.ledger.note(f"client {name} broke: {error!r}")
            self.failures.append(error)

    def join(self) -> None:
        self.stop.set()
        for thread in self._threads:
            thread.join(2 * PATIENCE)
        assert not any(thread.is_alive() for thread in self._threads), "a client does not end"
        if self.failures:
            raise self.failures[0]

    def rest(self, kind: str) -> None:
        """Before the next request, when the last one's outcome was this."""
        self.stop.wait(RETRY_SECONDS if kind in (NOT_CONNECTED, CONNECTION_LOST) else self.pause)


def outcome_of(error: grpc.RpcError, deadline: float | None) -> str:
    code, details = error.code(), (error.details() or "").lower()
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return UNANSWERED if deadline is None else "deadline_exceeded"
    if code == grpc.StatusCode.UNAVAILABLE:
        not_taken = ("connect", "refused", "goaway", "draining", "name resolution")
        lost = ("reset", "closed", "broken pipe")
        if any(word in details for word in lost) and "failed to connect" not in details:
            return CONNECTION_LOST
        return NOT_CONNECTED if any(word in details for word in not_taken) else f"status 14: {details}"
    return STATUS_KINDS.get(code, f"status {code.value[0]}")


def blocking_client(traffic: Traffic, name: str, random: np.random.Generator) -> None:
    """grpcio, one call at a time, now and then with a deadline that may pass."""
    with grpc.insecure_channel(traffic.grpc_address, options=OPTIONS) as channel:
        call = channel.unary_unary(PATH)
        while not traffic.stop.is_set():
            request = make_request(random, large=random.random() < 0.02)
            deadline = float(random.uniform(0.05, 3)) if random.random() < 0.1 else None
            sent = traffic.ledger.now()
            try:
                kind, text = judge(request, decode(call(encode(request), timeout=deadline or PATIENCE)))
            except grpc.RpcError as error:
                kind, text = outcome_of(error, deadline), str(error.details())
            refused_early = deadline is not None and kind == "overloaded" and "than its deadline allows" in text
            if kind == "deadline_exceeded" or refused_early:
                kind = RIGHT  # it is what the client asked for, whatever the server was busy with
            traffic.ledger.record(name, request.servable, sent, kind, text)
            traffic.rest(kind)


def window_client(traffic: Traffic, name: str, random: np.random.Generator) -> None:
    """grpcio, up to 16 calls in flight, some of which are taken back."""
    with grpc.insecure_channel(traffic.grpc_address, options=OPTIONS) as channel:
        call = channel.unary_unary(PATH)
        while not traffic.stop.is_set():
            flight, kind = [], RIGHT
            for _ in range(int(random.integers(1, 17))):
                request = make_request(random)
                flight.append((request, traffic.ledger.now(), call.future(encode(request), timeout=PATIENCE)))
            for request, sent, future in flight:
                if random.random() < 0.05:
                    future.cancel()
                    if future.cancelled():
                        continue
                try:
                    kind, text = judge(request, decode(future.result()))
                except grpc.RpcError as error:
                    kind, text = outcome_of(error, None), str(error.details())
                traffic.ledger.record(name, request.servable, sent, kind, text)
            traffic.rest(kind)


def rest_client(traffic: Traffic, name: str, random: np.random.Generator) -> None:
    """HTTP/1.1 on one connection for as long as it lasts."""
    connection: http.client.HTTPConnection | None = None
    fresh = True
    while not traffic.stop.is_set():
        request = make_request(random)
        sent = traffic.ledger.now()
        if connection is None:
            connection, fresh = http.client.HTTPConnection(traffic.rest_address, timeout=PATIENCE), True
        try:
            kind, text = _over_rest(connection, request)
            fresh = False
        except TimeoutError as error:
            kind, text = UNANSWERED, repr(error)
        except ConnectionRefusedError as error:
            kind, text = NOT_CONNECTED, repr(error)
        except (ConnectionError, http.client.HTTPException, OSError) as error:
            # HTTP/1.1 cannot say whether a request on an old connection was taken before the server closed it.
            kind, text = CONNECTION_LOST, f"{error!r} on {'a new' if fresh else 'an old'} connection"
        traffic.ledger.record(name, request.servable, sent, kind, text)
        if kind in (UNANSWERED, NOT_CONNECTED, CONNECTION_LOST) or random.random() < 0.01:
            connection.close()
            connection = None
        traffic.rest(kind)
    if connection is not None:
        connection.close()


def _over_rest(connection: http.client.HTTPConnection, request: Request) -> tuple[str, str]:
    body = json.dumps(json_body(request)).encode()
    connection.request(
        "POST", f"/model/{request.servable}:{request.method}", body, {"Content-Type": "application/json"}
    )
    response = connection.getresponse()
    answer = response.read()
    return judge(request, from_json(response.status, json.loads(answer)))


def raw_client(traffic: Traffic, name: str, random: np.random.Generator) -> None:
    """Frames by hand: several requests in one segment, streams that are reset, connections that are cut."""
    client: RawClient | None = None
    while not traffic.stop.is_set():
        requests = [make_request(random) for _ in range(int(random.integers(1, 9)))]
        sent = traffic.ledger.now()
        try:
            if client is None:
                client = RawClient(traffic.grpc_address, PATIENCE)
            outcomes = client.call([encode(request) for request in requests])
        except ConnectionRefusedError as error:
            outcomes = [(NOT_CONNECTED, repr(error).encode())] * len(requests)
        for request, (kind, raw) in zip(requests, outcomes, strict=True):
            text = raw.decode(errors="replace") if kind != RIGHT else ""
            if kind == RIGHT:
                kind, text = judge(request, decode(raw))
            traffic.ledger.record(name, request.servable, sent, kind, text)
        if client is not None and (client.over or random.random() < 0.02):
            client.close()
            client = None
        traffic.rest(outcomes[0][0])
    if client is not None:
        client.close()


KINDS: dict[str, Callable[..., None]] = {
    "grpcio": blocking_client,
    "window": window_client,
    "rest": rest_client,
    "raw": raw_client,
}
