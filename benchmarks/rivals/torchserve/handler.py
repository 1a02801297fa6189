"""What TorchServe's worker calls with the requests of a batch: a custom handler, as its guide describes."""

from rival_work import bodies, functions
from rival_work.works import chosen

WORK = chosen()
function = functions.load(WORK)


def handle(requests, context):
    if requests is None:
        return None  # the call that loads the model
    # gRPC has a name for each input, HTTP calls a plain body "body".
    arrays = [bodies.from_raw(WORK.inputs, bytes(one.get("data") or one.get("body"))) for one in requests]
    return [bodies.to_raw(results) for results in functions.run_together(function, arrays)]
