"""A start-up script for the serving side of a distributed servable: everything comes from the environment, so that one
image or unit fits every servable.

SERVING_DIRECTORY     the directory that holds the servable's directory            (needed)
SERVING_SERVABLE      the servable's name                                          (needed)
SERVING_RANK_TABLE    the rank table, absolute or beside this script               (needed)
SERVING_RANKS_ADDRESS where launchers and agents connect to, default 0.0.0.0:6200
SERVING_RANKS_TLS     a directory with tls.crt, tls.key and ca.crt: connections of launchers and agents are encrypted,
                      and only who shows a certificate of ca.crt may bring ranks. Unset: no TLS
SERVING_GRPC_ADDRESS  default 0.0.0.0:5500
SERVING_REST_ADDRESS  default 0.0.0.0:1500
SERVING_STOP_SECONDS  how long accepted requests may take when the server stops, default 10
"""

import os

from mindspore_serving import server
from mindspore_serving.server import distributed


def tls_config():
    directory = os.environ.get("SERVING_RANKS_TLS")
    if not directory:
        return None
    names = ("tls.crt", "tls.key", "ca.crt")
    return server.SSLConfig(*(os.path.join(directory, name) for name in names), verify_client=True)


def main():
    server.set_stop_timeout(float(os.environ.get("SERVING_STOP_SECONDS", "10")))
    # Probes are answered from here on; "ready" comes when all ranks are.
    server.start_restful_server(os.environ.get("SERVING_REST_ADDRESS", "0.0.0.0:1500"))
    distributed.start_servable(
        servable_directory=os.environ["SERVING_DIRECTORY"],
        servable_name=os.environ["SERVING_SERVABLE"],
        rank_table_json_file=os.environ["SERVING_RANK_TABLE"],
        distributed_address=os.environ.get("SERVING_RANKS_ADDRESS", "0.0.0.0:6200"),
        ssl_config=tls_config(),
    )
    server.start_grpc_server(os.environ.get("SERVING_GRPC_ADDRESS", "0.0.0.0:5500"))


if __name__ == "__main__":
    main()
