"""Serves the two_stages servable over gRPC and REST until Ctrl+C.

Run export_model.py first, and serving_agents.py beside this: it waits until all ranks are ready. With --pipeline the
first stage begins the next batch while the second is still at work on this one.
"""

import argparse
import os

from mindspore_serving import server
from mindspore_serving.server import distributed

GRPC_ADDRESS = os.environ.get("SERVING_GRPC_ADDRESS", "127.0.0.1:5500")
REST_ADDRESS = os.environ.get("SERVING_REST_ADDRESS", "127.0.0.1:1500")
RANKS_ADDRESS = os.environ.get("SERVING_RANKS_ADDRESS", "127.0.0.1:6200")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pipeline", action="store_true", help="let the stages work on different batches at a time")
    if parser.parse_args().pipeline:
        os.environ["TWO_STAGES_PIPELINE"] = "1"  # for servable_config.py, which the worker process imports
    distributed.start_servable(
        servable_directory=os.path.dirname(os.path.abspath(__file__)),
        servable_name="two_stages",
        rank_table_json_file="rank_table.json",
        distributed_address=RANKS_ADDRESS,
    )
    server.start_grpc_server(GRPC_ADDRESS)
    server.start_restful_server(REST_ADDRESS)


if __name__ == "__main__":
    main()
