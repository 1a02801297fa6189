"""Starts the ranks of this machine and watches over them until the server stops, or until Ctrl+C."""

import os

from mindspore_serving.server import distributed

RANKS_ADDRESS = os.environ.get("SERVING_RANKS_ADDRESS", "127.0.0.1:6200")


def main():
    distributed.startup_agents(
        distributed_address=RANKS_ADDRESS,
        model_files=["models/rank_0.mindir", "models/rank_1.mindir"],
    )


if __name__ == "__main__":
    main()
