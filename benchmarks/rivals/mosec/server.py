"""mosec: a worker process behind its Rust front-end. Two routes: raw bytes and JSON."""

from mosec import Runtime, Server, Worker
from rival_work import bodies, functions
from rival_work.works import chosen

WORK = chosen()


class _Stage(Worker):
    names = WORK.stages

    def __init__(self):
        super().__init__()
        self._functions = [functions.stage(name) for name in self.names]

    def _run(self, arrays):
        for function in self._functions:
            arrays = function(*arrays)
        return arrays

    def forward(self, data):
        # mosec hands over a list if it batches, and one request otherwise.
        if self.max_batch_size == 1:
            return self._run(data)
        return functions.run_together(self._run, data)


class _RawIn:
    def deserialize(self, data):
        return bodies.from_raw(WORK.inputs, data)


class _RawOut:
    resp_mime_type = "application/octet-stream"

    def serialize(self, data):
        return bodies.to_raw(data)


class _JsonIn:
    def deserialize(self, data):
        return bodies.from_json(WORK.inputs, data)


class _JsonOut:
    def serialize(self, data):
        return bodies.to_json(WORK.outputs, data)


class Raw(_RawIn, _RawOut, _Stage):
    pass


class Json(_JsonIn, _JsonOut, _Stage):
    pass


# The pipeline: a worker process for each stage.
class RawFirst(_RawIn, _Stage):
    names = WORK.stages[:1]


class JsonFirst(_JsonIn, _Stage):
    names = WORK.stages[:1]


class Middle(_Stage):
    names = WORK.stages[1:2]


class RawLast(_RawOut, _Stage):
    names = WORK.stages[2:]


class JsonLast(_JsonOut, _Stage):
    names = WORK.stages[2:]


def runtimes(*workers):
    return [Runtime(worker, num=1, max_batch_size=WORK.max_batch, max_wait_time=1, timeout=30) for worker in workers]


if __name__ == "__main__":
    server = Server()
    if WORK.name == "pipeline":
        server.register_runtime(
            {"/raw": runtimes(RawFirst, Middle, RawLast), "/json": runtimes(JsonFirst, Middle, JsonLast)}
        )
    else:
        server.register_runtime({"/raw": runtimes(Raw), "/json": runtimes(Json)})
    server.run()
