"""The server under test: the servables named in BENCH_SERVABLES, from the folder BENCH_SERVABLE_DIRECTORY."""

import os

from mindspore_serving import server


def main():
    folder = os.environ["BENCH_SERVABLE_DIRECTORY"]
    names = os.environ["BENCH_SERVABLES"].split(",")
    server.start_servables([server.ServableStartConfig(folder, name, device_ids=0) for name in names])
    server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
    server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])


if __name__ == "__main__":
    main()
