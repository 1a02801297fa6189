"""Starts one server for one work, checks an answer, and measures the levels that the plan has for it."""

import http.client
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import grpc
import numpy as np

from harness.load import LoadError, Shape
from rivals.loads import Level, LoadGenerator, Measured
from rivals.plan import Case, Job, Part
from rivals.processes import MarkedServer, memory_mb, repin, settle
from rivals.protocols import Arrays, Echo, Request, ServingProtocol, without_prefix
from rivals.rival import FOLDER, Rival, Start
from servers import free_port

from rival_work.works import WORKS, random_inputs  # isort: skip  (protocols has made it importable)

# BLAS and the like get one thread: the server has one core.
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
_CALL_SECONDS = 10.0
_SLOW_SECONDS = 4.0
_SOME_ANSWERS = 25  # of a slow server: a share of 4 % is seen
# JSON answers may carry identifiers, and numbers of other lengths.
_TEXT_SLACK = 64


@dataclass
class Row:
    """One line of the results."""

    rival: str
    case: str
    protocol: str = ""
    level: str = ""
    connections: int = 0
    streams: int = 0
    rate: float = 0
    measured: Measured | None = None
    memory_mb: float = 0
    checked: int = 0  # answers under load that were decoded and compared
    error: str = ""

    def as_json(self) -> dict[str, object]:
        return {**self.__dict__, "measured": self.measured and self.measured.as_json()}


@dataclass(frozen=True)
class Surroundings:
    """Where things are."""

    models: Path
    build: Path
    scratch: Path
    python: Callable[[Rival], Path]
    packages: Callable[[Rival], list[Path]]  # folders that its interpreter gets beside its own
    start_limit: float = 60.0


def call(request: Request, start: Start, is_grpc: bool, timeout: float = _CALL_SECONDS) -> bytes:
    """One call, and the answer's HTTP body (for gRPC with its prefix, as the load generator counts it)."""
    if is_grpc:
        limits = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        with grpc.insecure_channel(f"127.0.0.1:{start.grpc_port}", options=limits) as channel:
            message = channel.unary_unary(request.path)(without_prefix(request.body), timeout=timeout)
        return b"\0" + len(message).to_bytes(4, "big") + message
    connection = http.client.HTTPConnection("127.0.0.1", start.http_port, timeout=timeout)
    try:
        connection.request("POST", request.path, request.body, request.headers)
        response = connection.getresponse()
        body = response.read()
        if response.status != 200:
            raise LoadError(f"HTTP {response.status}: {body[:300].decode(errors='replace')}")
        return body
    finally:
        connection.close()


def expected_answer(models: Path, case: Case, protocol: ServingProtocol, request: Request) -> Arrays:
    if isinstance(protocol, Echo):
        return [np.frombuffer(request.body, np.uint8)]
    with np.load(models / "expected" / f"{case.work}-{case.instances}.npz") as file:
        return [file[name] for name in file.files]


def check(answer: Arrays, expected: Arrays) -> None:
    """Networks are run by two libraries, so the last digits differ."""
    if len(answer) != len(expected):
        raise LoadError(f"{len(answer)} outputs came back, not {len(expected)}")
    for got, wanted in zip(answer, expected, strict=True):
        if got.shape != wanted.shape:
            raise LoadError(f"an output of shape {got.shape} came back, not {wanted.shape}")
        if not np.allclose(got, wanted, rtol=1e-3, atol=1e-4):
            raise LoadError(f"a wrong answer came back: {got.ravel()[:4]} instead of {wanted.ravel()[:4]}")


def _first_call(protocol: ServingProtocol, request: Request, start: Start, server: MarkedServer,
                deadline: float) -> bytes:  # fmt: skip
    """Calls until the server answers; what it says last is the error."""
    while True:
        if server.exit_code is not None:
            raise LoadError(f"the server ended with {server.exit_code}:\n{server.log_end()}")
        try:
            return call(request, start, protocol.grpc, min(_CALL_SECONDS, max(1, deadline - time.monotonic())))
        except (OSError, http.client.HTTPException, grpc.RpcError, LoadError) as error:
            if time.monotonic() > deadline:
                said = str(error).splitlines()[0] if str(error) else repr(error)
                raise LoadError(f"no answer within the time to start: {said}\n{server.log_end()}") from error
        time.sleep(0.1)


@contextmanager
def started(job: Job, where: Surroundings) -> Iterator[tuple[MarkedServer, Start]]:
    scratch = where.scratch / f"{job.rival.name}-{job.work}"
    scratch.mkdir(parents=True, exist_ok=True)
    start = Start(where.python(job.rival), job.work, free_port(), free_port(), where.build, scratch)
    env = {
        **_ONE_THREAD,
        "PYTHONPATH": os.pathsep.join(map(str, (FOLDER / "shared", *where.packages(job.rival)))),
        "PYTHONUNBUFFERED": "1",
        "RIVALS_WORK": job.work,
        "RIVALS_PROTOCOL": job.parts[0].protocol,
        "RIVALS_GRPC_PORT": str(start.grpc_port),
        "RIVALS_HTTP_PORT": str(start.http_port),
        "RIVALS_MODELS": str(where.models / "onnx"),
        "RIVALS_MINDIR": str(where.models / "mindir"),
        "PATH": f"{start.python.parent}:{os.environ['PATH']}",
        **job.rival.env(start),
    }
    log = scratch / "server.log"
    try:
        with MarkedServer(job.rival.command(start), env, scratch, log, ends_slowly=job.rival.ends_slowly) as server:
            yield server, start
    finally:
        for folder in job.rival.leaves(start):
            shutil.rmtree(folder, ignore_errors=True)


def _slack(protocol: ServingProtocol, instances: int) -> int:
    """What an answer's length may differ by: nothing where tensors are bytes and no identifier goes with them."""
    text = "JSON" in protocol.title or protocol.title == "REST" or "V2" in protocol.title
    return _TEXT_SLACK * instances if text and not isinstance(protocol, Echo) else 0


def _failed(job: Job, part: Part, level: Level | None, error: Exception) -> Row:
    return Row(job.rival.name, part.case.name, part.protocol, str(level or ""), error=str(error) or repr(error))


def run_job(job: Job, where: Surroundings, generator: LoadGenerator, say: Callable[[str], None]) -> Iterator[Row]:
    """Yields a row for each level; a failure is a row, too, and ends its part alone."""
    if job.work in job.rival.skips:
        yield from (_failed(job, part, None, LoadError(job.rival.skips[job.work])) for part in job.parts)
        return
    deadline = time.monotonic() + where.start_limit
    with started(job, where) as (server, start):
        for part in job.parts:
            if time.monotonic() > deadline and not server.answered:
                return  # it has said why
            try:
                yield from _run_part(part, job, server, start, deadline, where, generator, say)
            except Exception as error:  # the rival's failure is its result
                yield _failed(job, part, None, error)
                if server.exit_code is not None:
                    return


def _run_part(part: Part, job: Job, server: MarkedServer, start: Start, deadline: float, where: Surroundings,
              generator: LoadGenerator, say: Callable[[str], None]) -> Iterator[Row]:  # fmt: skip
    protocol = job.rival.protocols[part.protocol]
    work, instances = WORKS[job.work], part.case.instances
    request = protocol.encode(work, random_inputs(work, instances))
    reply = _first_call(protocol, request, start, server, deadline)
    server.answered = True
    began = time.monotonic()
    reply = call(request, start, protocol.grpc)
    slow = time.monotonic() - began  # what takes long is given time for some answers
    expected = expected_answer(where.models, part.case, protocol, request)
    check(protocol.decode(work, reply), expected)
    pids = server.pids()
    if repin(pids):
        say(f"{job.rival.name}: threads that had left the server's core were put back")

    def load(level: Level, at_least_seconds: float) -> tuple[Measured, list[bytes]]:
        settle(pids)
        return generator.run(
            request, grpc=protocol.grpc, port=start.grpc_port if protocol.grpc else start.http_port, level=level,
            at_least_seconds=min(_SLOW_SECONDS, at_least_seconds), reply_bytes=len(reply),
            reply_slack=_slack(protocol, instances), pids=pids,
        )  # fmt: skip

    if job.rival.warm_up_seconds:
        load(Level(Shape(16)), job.rival.warm_up_seconds)
    rate = 0.0  # as the last level had it: many in flight at a slow server need time, too
    for level in part.levels:
        say(f"{part.case.name}  {job.rival.name}  {protocol.title}  {level}")
        in_flight = level.shape.connections * level.shape.streams
        needed = max(_SOME_ANSWERS * slow, 3 * slow * min(8, in_flight), 3 * in_flight / rate if rate else 0.0)
        try:
            measured, samples = load(level, needed)
            rate = measured.requests_s
            for sample in samples:
                check(protocol.decode(work, sample), expected)
        except LoadError as error:
            yield _failed(job, part, level, error)
            continue
        yield Row(
            job.rival.name, part.case.name, part.protocol, str(level), level.shape.connections, level.shape.streams,
            level.rate, measured, memory_mb(pids), len(samples),
        )  # fmt: skip
