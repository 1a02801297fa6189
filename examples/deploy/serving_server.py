"""A start-up script for deployments: what it serves, and where, comes from the environment, so that one image or unit
fits every servable.

SERVING_DIRECTORY     the directory with the servables                  (needed)
SERVING_SERVABLES     their names, with commas between                  (needed)
SERVING_GRPC_ADDRESS  default 0.0.0.0:5500
SERVING_REST_ADDRESS  default 0.0.0.0:1500
SERVING_STOP_SECONDS  how long accepted requests may take when the server stops, default 10
SERVING_QUEUE_SECONDS how long a request may have to wait for its worker, default 5
"""

import os

from mindspore_serving import server
from mindspore_serving.server.master import context


def main():
    folder = os.environ["SERVING_DIRECTORY"]
    names = os.environ["SERVING_SERVABLES"].split(",")
    server.set_stop_timeout(float(os.environ.get("SERVING_STOP_SECONDS", "10")))
    context.set_max_queue_seconds(float(os.environ.get("SERVING_QUEUE_SECONDS", "5")))
    # Probes are answered from here on; "ready" comes when the servables are.
    server.start_restful_server(os.environ.get("SERVING_REST_ADDRESS", "0.0.0.0:1500"))
    server.start_servables([server.ServableStartConfig(folder, name, device_ids=0) for name in names])
    server.start_grpc_server(os.environ.get("SERVING_GRPC_ADDRESS", "0.0.0.0:5500"))


if __name__ == "__main__":
    main()
