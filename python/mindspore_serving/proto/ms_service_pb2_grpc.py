"""Client and server classes of mindspore_serving/proto/ms_service.proto. Written by proto/generate.py; do not edit."""

import grpc

from mindspore_serving.proto import ms_service_pb2


class MSServiceStub:
    """Calls mindspore.serving.proto.MSService over a channel."""

    def __init__(self, channel):
        self.Predict = channel.unary_unary(
            "/mindspore.serving.proto.MSService/Predict",
            request_serializer=ms_service_pb2.PredictRequest.SerializeToString,
            response_deserializer=ms_service_pb2.PredictReply.FromString,
        )


class MSServiceServicer:
    """What a server of mindspore.serving.proto.MSService implements."""

    def Predict(self, request, context):
        """PredictRequest to PredictReply."""
        context.set_code(grpc.StatusCode.UNIMPLEMENTED)
        context.set_details("Predict is not implemented")
        raise NotImplementedError("Predict is not implemented")


def add_MSServiceServicer_to_server(servicer, server):
    """Has `server` answer mindspore.serving.proto.MSService with `servicer`."""
    handlers = {
        "Predict": grpc.unary_unary_rpc_method_handler(
            servicer.Predict,
            request_deserializer=ms_service_pb2.PredictRequest.FromString,
            response_serializer=ms_service_pb2.PredictReply.SerializeToString,
        ),
    }
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("mindspore.serving.proto.MSService", handlers),))
