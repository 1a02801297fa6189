"""Addresses, message limits and TLS of a whole server, as the parameters of its two start calls set them."""

import os

import numpy as np
import pytest
import requests

from certificates import server_and_client
from mindspore_serving.client import Client, SSLConfig
from servables import make_servable
from servers import ServerProcess

CONFIG = """
from mindspore_serving.server import register


def grow(x):
    return x.repeat(8)


@register.register_method("y")
def same(x):
    return x


@register.register_method("y")
def eightfold(x):
    return register.call_preprocess(grow, x)
"""

HEAD = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
grpc_address, rest_address = os.environ["SERVING_GRPC_ADDRESS"], os.environ["SERVING_REST_ADDRESS"]
"""
START_BOTH = "server.start_grpc_server(grpc_address)\nserver.start_restful_server(rest_address)\n"
SERVABLES = 'server.start_servables(server.ServableStartConfig(folder, "same"))\n'


@pytest.fixture
def script(tmp_path):
    """Writes a start-up script beside a servable without a model."""
    make_servable(tmp_path, "same", CONFIG, {})

    def write(text):
        path = tmp_path / "start.py"
        path.write_text(HEAD + text)
        return path

    return write


def ended(path):
    """What a script that must fail has printed."""
    server = ServerProcess(path).start()
    try:
        assert server.wait_exit(60) == 1, server.log
        assert server.pids() == []
        return server.log
    finally:
        server.kill()


def test_AUnixSocketMayHaveARelativePath(script, start_server, tmp_path):
    address = "unix:./serving.sock"
    path = script(SERVABLES + f"server.start_grpc_server({address!r})\n")
    start_server(path, addresses=(address, ""), listens=("gRPC",))
    with Client(f"unix:{tmp_path}/serving.sock", "same", "same") as client:
        assert client.infer({"x": "text"}) == [{"y": "text"}]


def test_ServersMayBeStartedBeforeTheServables(script, start_server):
    server = start_server(script(START_BOTH + SERVABLES + "print('all ready', flush=True)\n"))
    client = Client(server.grpc_address, "same", "same")
    answer = client.infer({"x": 1})
    while isinstance(answer, dict):  # the servable is still starting
        assert "servable is not available" in answer["error"]
        answer = client.infer({"x": 1})
    assert answer[0]["y"] == 1


def test_TheMessageLimitHoldsInBothDirections(script, start_server):
    server = start_server(
        script(
            SERVABLES + "server.start_grpc_server(grpc_address, max_msg_mb_size=1)\n"
            "server.start_restful_server(address=rest_address, max_msg_mb_size=1)\n"
        )
    )
    large, small = np.zeros(1100 << 10, np.uint8), np.zeros(500 << 10, np.uint8)
    with Client(server.grpc_address, "same", "same") as client:
        assert client.infer({"x": large})["error"].startswith("Grpc Error, (8, 'resource exhausted')")
        np.testing.assert_array_equal(client.infer({"x": small})[0]["y"], small)
    with Client(server.grpc_address, "same", "eightfold") as client:  # the answer alone is too large
        assert client.infer({"x": small})["error"].startswith("Grpc Error, (8, 'resource exhausted')")
    url = f"http://{server.rest_address}/model/same:same"
    reply = requests.post(url, data=b" " * (1 << 20) + b'{"instances":{"x":1}}', timeout=30)
    assert reply.status_code == 413
    assert "http message is bigger than 1048576" in reply.json()["error_msg"]
    assert requests.post(url, data=b'{"instances":{"x":1}}', timeout=30).json() == {"instances": [{"y": 1}]}


# ---------------------------------------------------------------------------------------------- failing
@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("server.start_grpc_server(grpc_address)\n" * 2, ["start_grpc_server has been called already"]),
        ("server.start_restful_server(rest_address)\n" * 2, ["start_restful_server has been called already"]),
        (
            "server.start_grpc_server(grpc_address)\nserver.start_restful_server(grpc_address)\n",
            ["create server failed, address", "bind to the socket address"],
        ),
        ("server.start_grpc_server('192.0.2.7:5500')\n", ["create server failed, address", "bind to the socket"]),
        ("server.start_grpc_server('no.such.host.invalid:5500')\n", ["create server failed, address"]),
        *[
            (
                f"server.{start}({address}, ssl_config=server.SSLConfig('no.crt', 'no.key'))\n",
                ["no.crt"],
            )
            for start, address in (("start_grpc_server", "grpc_address"), ("start_restful_server", "rest_address"))
        ],
    ],
)
def test_WhatCannotBeStarted_IsARuntimeErrorThatSaysWhy(script, text, tokens):
    log = ended(script(text))
    assert "RuntimeError: " in log
    for token in tokens:
        assert token in log


# ---------------------------------------------------------------------------------------------- TLS
@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """The folder of an authority, a server's and a client's certificates."""
    return server_and_client(tmp_path_factory.mktemp("certificates")).folder


@pytest.mark.parametrize("verify_client", [False, True])
def test_SslConfigEncryptsBothServers(script, start_server, certificates, verify_client):
    text = (
        f"os.chdir({str(certificates)!r})\n"
        f"ssl = server.SSLConfig('server.crt', 'server.key', 'ca.crt', verify_client={verify_client})\n"
        "server.start_grpc_server(grpc_address, ssl_config=ssl)\n"
        "server.start_restful_server(rest_address, ssl_config=ssl)\n"
    )
    server = start_server(script(SERVABLES + text))

    def path(name):
        return os.path.join(certificates, name)

    known = SSLConfig(custom_ca=path("ca.crt"))
    proven = SSLConfig(path("client.crt"), path("client.key"), path("ca.crt"))
    url = f"https://{server.rest_address}/model/same:same"
    body = b'{"instances":{"x":1}}'
    pair = (path("client.crt"), path("client.key"))
    with Client(server.grpc_address, "same", "same", ssl_config=proven) as client:
        assert client.infer({"x": "text"}) == [{"y": "text"}]
    reply = requests.post(url, data=body, timeout=30, verify=path("ca.crt"), cert=pair)
    assert reply.json() == {"instances": [{"y": 1}]}
    with Client(server.grpc_address, "same", "same", ssl_config=known) as client:
        answer = client.infer({"x": "text"})
    if verify_client:
        assert answer["error"].startswith("Grpc Error, (14, 'unavailable')")
        with pytest.raises(requests.exceptions.RequestException):
            requests.post(url, data=body, timeout=30, verify=path("ca.crt"))
    else:
        assert answer == [{"y": "text"}]
        assert requests.post(url, data=body, timeout=30, verify=path("ca.crt")).ok
    with Client(server.grpc_address, "same", "same") as client:  # without encryption
        assert client.infer({"x": "text"})["error"].startswith("Grpc Error, (14, 'unavailable')")
