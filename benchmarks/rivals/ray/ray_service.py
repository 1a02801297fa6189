"""The gRPC service that Ray's proxy is given: bytes in, bytes out, in the form that grpcio's generator writes it."""

import grpc
from google.protobuf.wrappers_pb2 import BytesValue


def add_to_server(servicer, server):
    handler = grpc.unary_unary_rpc_method_handler(
        servicer.Infer, request_deserializer=BytesValue.FromString, response_serializer=BytesValue.SerializeToString
    )
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler("rivals.Work", {"Infer": handler}),))
