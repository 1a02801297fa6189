"""The server under test: the servables named in BENCH_SERVABLES, from the folder BENCH_SERVABLE_DIRECTORY."""

import os

from mindspore_serving import server


def main():
    folder = os.environ["BENCH_SERVABLE_DIRECTORY"]
    names = os.environ["BENCH_SERVABLES"].split(",")
    workers = int(os.environ.get("BENCH_PARALLEL_WORKERS", "0"))
    server.start_servables(
        [server.ServableStartConfig(folder, name, device_ids=0, num_parallel_workers=workers) for name in names]
    )
    server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"])
    server.start_restful_server(os.environ["SERVING_REST_ADDRESS"])


if __name__ == "__main__":
    main()
