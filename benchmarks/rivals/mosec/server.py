"""mosec: a worker process behind its Rust front-end. Two routes: raw bytes and JSON."""

from mosec import Runtime, Server, Worker
from rival_work import bodies, functions
from rival_work.works import chosen

WORK = chosen()


class _Work(Worker):
    def __init__(self):
        super().__init__()
        self._function = functions.load(WORK)

    def forward(self, data):
        # mosec hands over a list if it batches, and one request otherwise.
        if self.max_batch_size == 1:
            return self._function(data)
        return functions.run_together(self._function, data)


class Raw(_Work):
    resp_mime_type = "application/octet-stream"

    def deserialize(self, data):
        return bodies.from_raw(WORK.inputs, data)

    def serialize(self, data):
        return bodies.to_raw(data)


class Json(_Work):
    def deserialize(self, data):
        return bodies.from_json(WORK.inputs, data)

    def serialize(self, data):
        return bodies.to_json(WORK.outputs, data)


def runtime(worker):
    return Runtime(worker, num=1, max_batch_size=WORK.max_batch, max_wait_time=1, timeout=30)


if __name__ == "__main__":
    server = Server()
    server.register_runtime({"/raw": [runtime(Raw)], "/json": [runtime(Json)]})
    server.run()
