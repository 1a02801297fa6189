"""Starts the ranks of this machine and watches over them until the server stops, or until Ctrl+C."""

import os

from mindspore_serving.server import distributed

RANKS_ADDRESS = os.environ.get("SERVING_RANKS_ADDRESS", "127.0.0.1:6200")
RANKS = int(os.environ.get("MATMUL_RANKS", "2"))


def main():
    distributed.startup_agents(
        distributed_address=RANKS_ADDRESS,
        model_files=[f"models/rank_{rank}.mindir" for rank in range(RANKS)],
    )


if __name__ == "__main__":
    main()
