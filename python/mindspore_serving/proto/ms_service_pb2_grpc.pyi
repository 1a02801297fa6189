# Types of ms_service_pb2_grpc.py. Written by proto/generate.py; do not edit.
from typing import Any

import grpc

from mindspore_serving.proto import ms_service_pb2

class MSServiceStub:
    def __init__(self, channel: grpc.Channel) -> None: ...
    Predict: grpc.UnaryUnaryMultiCallable

class MSServiceServicer:
    def Predict(self, request: ms_service_pb2.PredictRequest, context: Any) -> ms_service_pb2.PredictReply: ...

def add_MSServiceServicer_to_server(servicer: MSServiceServicer, server: grpc.Server) -> None: ...
