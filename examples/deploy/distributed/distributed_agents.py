"""A start-up script for a machine or pod with ranks of a distributed servable: everything comes from the environment.

SERVING_RANKS_ADDRESS host:port of the distributed worker                                        (needed)
SERVING_MODEL_FILES   a rank's model file with {rank} in place of its number                     (needed)
SERVING_AGENT_IP      this machine's own address, under which other ranks reach its ranks        (needed)
SERVING_RANKS_HERE    how many ranks are here, default 1
SERVING_RANK_START    the first of them; or else
SERVING_POD_NAME      NAME-N, the Nth pod of a StatefulSet: its first rank is N x SERVING_RANKS_HERE
SERVING_RANKS_TLS     a directory with tls.crt, tls.key and ca.crt, if the server has one. Unset: no TLS
SERVING_READY_FILE    a file that is there from the time on when the distributed worker has taken the agents
"""

import os

from mindspore_serving.client import SSLConfig
from mindspore_serving.server import distributed


def first_rank(environment, ranks_here):
    if "SERVING_RANK_START" in environment:
        return int(environment["SERVING_RANK_START"])
    ordinal = environment["SERVING_POD_NAME"].rpartition("-")[2]
    return int(ordinal) * ranks_here


def tls_config():
    directory = os.environ.get("SERVING_RANKS_TLS")
    if not directory:
        return None
    return SSLConfig(*(os.path.join(directory, name) for name in ("tls.crt", "tls.key", "ca.crt")))


def main():
    ready_file = os.environ.get("SERVING_READY_FILE")
    if ready_file and os.path.exists(ready_file):
        os.remove(ready_file)  # of the container's life before
    ranks_here = int(os.environ.get("SERVING_RANKS_HERE", "1"))
    start = first_rank(os.environ, ranks_here)
    distributed.startup_agents(
        distributed_address=os.environ["SERVING_RANKS_ADDRESS"],
        model_files=[os.environ["SERVING_MODEL_FILES"].format(rank=start + i) for i in range(ranks_here)],
        agent_ip=os.environ["SERVING_AGENT_IP"],
        rank_start=start,
        ssl_config=tls_config(),
    )
    if ready_file:
        open(ready_file, "w").close()


if __name__ == "__main__":
    main()
