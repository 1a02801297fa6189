"""The wire messages: modules ms_service_pb2 and ms_service_pb2_grpc, written by proto/generate.py."""
