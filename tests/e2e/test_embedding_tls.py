"""A C++ program that serves over TLS by the embedding API, as grpcio and Python's own TLS see it."""

import http.client
import json
import shutil
import ssl
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from certificates import Authority, server_and_client
from embedding import package, run
from mindspore_serving.client import Client, SSLConfig
from servables import make_servable
from servers import ServerProcess

SOURCE = Path(__file__).resolve().parents[1] / "support" / "tls_host.cc"
CONFIG = """
from mindspore_serving.server import register


def same(x):
    return x


@register.register_method(output_names=["y"])
def echo(x):
    return register.add_stage(same, x, outputs_count=1)
"""

pytestmark = pytest.mark.skipif(not shutil.which("openssl"), reason="needs the program openssl")


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("tls_host") / "tls_host"
    libraries = package("lib-dir")
    linked = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-lmindspore_serving"]
    run("g++", "-std=c++17", f"-I{package('include-dir')}", SOURCE, *linked, "-o", program)
    return program


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return server_and_client(tmp_path_factory.mktemp("authority"))


@pytest.fixture(params=[False, True], ids=["one way", "mutual"], scope="module")
def mutual(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(scope="module")
def server(
    program: Path, authority: Authority, mutual: bool, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("servables")
    make_servable(folder, "copies", CONFIG, {})
    names = ["server.crt", "server.key", *(["ca.crt"] if mutual else [])]
    arguments = ["copies", *map(authority.path, names)]
    with ServerProcess(
        folder, python=str(program), cwd=folder, arguments=arguments, env={"MSSERVING_PYTHON": sys.executable}
    ) as running:
        yield running


def ask(server: ServerProcess, config: SSLConfig | None) -> object:
    with Client(server.grpc_address, "copies", "echo", ssl_config=config) as client:
        return client.infer({"x": "text"})


def post(server: ServerProcess, scheme: str = "https", context: ssl.SSLContext | None = None) -> object:
    url = f"{scheme}://{server.rest_address}/model/copies:echo"
    request = urllib.request.Request(url, b'{"instances":{"x":"text"}}', method="POST")
    with urllib.request.urlopen(request, timeout=60, context=context) as reply:
        return json.loads(reply.read())


def context_of(authority: Authority, *, shows_itself: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=authority.path("ca.crt"))
    if shows_itself:
        context.load_cert_chain(authority.path("client.crt"), authority.path("client.key"))
    return context


def test_BothProtocolsAnswerThoseWhomTheyTrust(server: ServerProcess, authority: Authority, mutual: bool):
    files = [authority.path(name) for name in ("client.crt", "client.key")] if mutual else [None, None]
    assert ask(server, SSLConfig(*files, authority.path("ca.crt"))) == [{"y": "text"}]
    reply = post(server, context=context_of(authority, shows_itself=mutual))
    assert reply == {"instances": [{"y": "text"}]}


def test_WithoutTlsNobodyIsAnswered(server: ServerProcess):
    answer = ask(server, None)
    assert isinstance(answer, dict) and "(14, 'unavailable')" in answer["error"]
    with pytest.raises((OSError, http.client.HTTPException)):
        post(server, "http")


def test_AClientThatDoesNotShowItselfIsAnsweredOneWayAlone(server: ServerProcess, authority: Authority, mutual: bool):
    answer = ask(server, SSLConfig(custom_ca=authority.path("ca.crt")))
    if not mutual:
        assert answer == [{"y": "text"}]
        return
    assert isinstance(answer, dict) and "(14, 'unavailable')" in answer["error"]
    with pytest.raises(OSError):
        post(server, context=context_of(authority, shows_itself=False))
