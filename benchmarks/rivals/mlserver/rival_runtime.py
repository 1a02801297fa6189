"""The runtime that MLServer loads: a custom MLModel, as its guide describes."""

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from rival_work import functions
from rival_work.works import chosen

WORK = chosen()


class Runtime(MLModel):
    async def load(self) -> bool:
        self._function = functions.load(WORK)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        found = {one.name: NumpyCodec.decode_input(one) for one in payload.inputs}
        results = self._function([found[tensor.name] for tensor in WORK.inputs])
        outputs = [
            NumpyCodec.encode_output(tensor.name, array) for tensor, array in zip(WORK.outputs, results, strict=True)
        ]
        return InferenceResponse(model_name=self.name, outputs=outputs)
