"""Serves the add_sub servable over gRPC and REST until Ctrl+C. Run export_model.py first."""

import os

from mindspore_serving import server

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")


def main():
    servable_dir = os.path.dirname(os.path.abspath(__file__))
    config = server.ServableStartConfig(servable_directory=servable_dir, servable_name="add_sub", device_ids=0)
    server.start_servables(config)
    server.start_grpc_server(GRPC_ADDRESS)
    server.start_restful_server(REST_ADDRESS)


if __name__ == "__main__":
    main()
