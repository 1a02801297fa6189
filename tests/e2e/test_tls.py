"""TLS of a whole server, as openssl, curl and grpcio see it."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from certificates import Authority
from mindspore_serving.client import Client, SSLConfig
from servables import make_servable
from servers import ServerProcess

TOOLS = ("openssl", "curl")
pytestmark = pytest.mark.skipif(
    not all(shutil.which(tool) for tool in TOOLS), reason=f"needs the programs {' and '.join(TOOLS)}"
)

CONFIG = """
from mindspore_serving.server import register


def same(x):
    return x


@register.register_method(output_names=["y"])
def echo(x):
    y = register.add_stage(same, x, outputs_count=1)
    return y
"""

# Both servers with the same files; mutual authentication if asked for.
SCRIPT = """
import os
from mindspore_serving import server

folder = os.path.dirname(os.path.abspath(__file__))
files = [os.path.join(folder, name) for name in ("server.crt", "server.key", "ca.crt")]
ssl = server.SSLConfig(*files, verify_client=bool(os.environ.get("VERIFY_CLIENT")))
server.start_servables(server.ServableStartConfig(folder, "copies"))
server.start_grpc_server(os.environ["SERVING_GRPC_ADDRESS"], ssl_config=ssl)
server.start_restful_server(os.environ["SERVING_REST_ADDRESS"], ssl_config=ssl)
"""


def make_server(folder: Path, **env: str) -> ServerProcess:
    make_servable(folder, "copies", CONFIG, {})
    script = folder / "start.py"
    script.write_text(SCRIPT)
    return ServerProcess(script, env=env)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """The server's certificate is signed by an intermediate one, which is in its file as well."""
    made = Authority(tmp_path_factory.mktemp("tls"))
    made.issue("intermediate", kind="authority")
    made.issue("server", issuer="intermediate")
    chain = [Path(made.path(name)).read_text() for name in ("server.crt", "intermediate.crt")]
    Path(made.path("server.crt")).write_text("".join(chain))
    made.issue("client")
    made.issue("expired", days=0)
    return made


@pytest.fixture(scope="module")
def strangers(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    made = Authority(tmp_path_factory.mktemp("strangers"))
    made.issue("client")
    return made


@pytest.fixture(scope="module")
def one_way(authority: Authority) -> Iterator[ServerProcess]:
    with make_server(authority.folder) as server:
        yield server


@pytest.fixture(scope="module")
def mutual(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServerProcess]:
    folder = tmp_path_factory.mktemp("mutual")
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(authority.path(name), folder)
    with make_server(folder, VERIFY_CLIENT="1") as server:
        yield server


def s_client(address: str, *arguments: str) -> tuple[bool, str]:
    """Whether the handshake was completed, and what openssl told."""
    command = ["openssl", "s_client", "-connect", address, "-verify_return_error", *arguments]
    done = subprocess.run(command, input=b"", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=False)
    return done.returncode == 0, done.stdout.decode(errors="replace")


def curl(server: ServerProcess, *arguments: str) -> tuple[int, str]:
    """curl's exit code and the reply of a prediction over REST."""
    url = f"https://{server.rest_address}/model/copies:echo"
    command = ["curl", "-sS", "--max-time", "60", "-d", '{"instances":{"x":1}}', *arguments, url]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=90, check=False)
    return done.returncode, done.stdout.decode(errors="replace")


def ask(server: ServerProcess, ssl_config: SSLConfig | None) -> object:
    with Client(server.grpc_address, "copies", "echo", ssl_config=ssl_config) as client:
        return client.infer({"x": "text"})


def refused(answer: object) -> bool:
    return isinstance(answer, dict) and answer["error"].startswith("Grpc Error, (14, 'unavailable')")


def test_OneWay_TheChainIsShownAndBelieved(one_way: ServerProcess, authority: Authority) -> None:
    root = authority.path("ca.crt")
    assert ask(one_way, SSLConfig(custom_ca=root)) == [{"y": "text"}]
    assert curl(one_way, "--cacert", root) == (0, '{"instances":[{"y":1}]}')
    for address, protocol in ((one_way.grpc_address, "h2"), (one_way.rest_address, "http/1.1")):
        good, text = s_client(address, "-CAfile", root, "-alpn", protocol, "-showcerts")
        assert good, text
        assert f"ALPN protocol: {protocol}" in text
        assert text.count("-----BEGIN CERTIFICATE-----") >= 2


def test_AClientThatDoesNotTrustTheServer_LeavesAndOthersStay(
    one_way: ServerProcess, authority: Authority, strangers: Authority
) -> None:
    assert refused(ask(one_way, SSLConfig(custom_ca=strangers.path("ca.crt"))))
    assert refused(ask(one_way, None))
    code, _ = curl(one_way, "--cacert", strangers.path("ca.crt"))
    assert code == 60  # the peer's certificate cannot be verified
    assert curl(one_way, "--cacert", authority.path("ca.crt"))[0] == 0


@pytest.mark.parametrize("version", ["tls1_2", "tls1_3"])
def test_Tls12AndTls13AreSpoken(one_way: ServerProcess, authority: Authority, version: str) -> None:
    for address, protocol in ((one_way.grpc_address, "h2"), (one_way.rest_address, "http/1.1")):
        good, text = s_client(address, "-CAfile", authority.path("ca.crt"), "-alpn", protocol, f"-{version}")
        assert good, text
        assert f"TLSv1.{version[-1]}" in text


@pytest.mark.parametrize("version", ["tls1", "tls1_1"])
def test_OlderVersionsAreRefused(one_way: ServerProcess, version: str) -> None:
    for address, protocol in ((one_way.grpc_address, "h2"), (one_way.rest_address, "http/1.1")):
        good, text = s_client(address, "-alpn", protocol, f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
        assert not good
        assert "alert protocol version" in text, text


def test_GrpcDemandsAlpnAndRestDoesNot(one_way: ServerProcess, authority: Authority) -> None:
    trust = ("-CAfile", authority.path("ca.crt"))
    good, text = s_client(one_way.grpc_address, *trust)
    assert not good
    assert "no application protocol" in text
    assert not s_client(one_way.grpc_address, *trust, "-alpn", "http/1.1")[0]
    assert not s_client(one_way.rest_address, *trust, "-alpn", "h2")[0]
    assert s_client(one_way.rest_address, *trust)[0]
    assert curl(one_way, "--cacert", authority.path("ca.crt"), "--no-alpn")[0] == 0


def test_Mutual_OnlyClientsWithAGoodCertificateComeIn(
    mutual: ServerProcess, authority: Authority, strangers: Authority
) -> None:
    root = authority.path("ca.crt")
    good = (authority.path("client.crt"), authority.path("client.key"))
    assert ask(mutual, SSLConfig(*good, root)) == [{"y": "text"}]
    assert curl(mutual, "--cacert", root, "--cert", good[0], "--key", good[1])[0] == 0
    bad = {
        "expired": (authority.path("expired.crt"), authority.path("expired.key")),
        "a stranger's": (strangers.path("client.crt"), strangers.path("client.key")),
    }
    for why, pair in bad.items():
        assert refused(ask(mutual, SSLConfig(*pair, root))), why
        assert curl(mutual, "--cacert", root, "--cert", pair[0], "--key", pair[1])[0] != 0, why
    assert refused(ask(mutual, SSLConfig(custom_ca=root))), "no certificate"
    assert curl(mutual, "--cacert", root)[0] != 0
    assert ask(mutual, SSLConfig(*good, root)) == [{"y": "text"}]


def test_NewFilesAreUsed_RunningConnectionsAndBadFilesChangeNothing(tmp_path: Path, authority: Authority) -> None:
    for name in ("server.crt", "server.key", "ca.crt"):
        shutil.copy(authority.path(name), tmp_path)
    fresh = Authority(make_folder(tmp_path / "fresh"))
    fresh.issue("server")
    with (
        make_server(tmp_path) as server,
        Client(
            server.grpc_address, "copies", "echo", ssl_config=SSLConfig(custom_ca=authority.path("ca.crt"))
        ) as running,
    ):
        assert running.infer({"x": "old"}) == [{"y": "old"}]
        (tmp_path / "server.crt").write_text("no certificate")
        wait_until(lambda: "The TLS files have changed and cannot be used" in server.log)
        assert ask(server, SSLConfig(custom_ca=authority.path("ca.crt"))) == [{"y": "text"}]
        for name in ("server.key", "server.crt"):
            shutil.copy(fresh.path(name), tmp_path / f"new.{name}")
            os.replace(tmp_path / f"new.{name}", tmp_path / name)
        for protocol, address in (("h2", server.grpc_address), ("http/1.1", server.rest_address)):
            wait_until(lambda a=address, p=protocol: s_client(a, "-CAfile", fresh.path("ca.crt"), "-alpn", p)[0])
        assert running.infer({"x": "still here"}) == [{"y": "still here"}]
        assert ask(server, SSLConfig(custom_ca=fresh.path("ca.crt"))) == [{"y": "text"}]
        # One line for each of the two servers, which look after their files themselves.
        assert server.log.count("The TLS files have changed and cannot be used") <= 2 * 2


def test_GarbageAndSilenceHarmNobody(one_way: ServerProcess, authority: Authority) -> None:
    for address in (one_way.grpc_address, one_way.rest_address):
        host, port = address.split(":")
        with socket.create_connection((host, int(port)), timeout=60) as silent:
            with socket.create_connection((host, int(port)), timeout=60) as garbage:
                garbage.sendall(b"GET / HTTP/1.1\r\n\r\n")
                try:
                    while garbage.recv(4096):
                        pass
                except ConnectionResetError:
                    pass
            silent.sendall(b"\x16")
            assert curl(one_way, "--cacert", authority.path("ca.crt"))[0] == 0


@pytest.mark.parametrize(
    ("certificate", "key", "reason"),
    [
        ("missing.crt", "server.key", "missing.crt': No such file"),
        ("server.crt", "missing.key", "missing.key': No such file"),
        ("server.crt", "client.key", "does not belong to the certificate file"),
        ("expired.crt", "expired.key", "has expired, it was valid until"),
        ("server.key", "server.key", "there is no certificate in it"),
    ],
)
def test_FilesThatCannotServe_AreNamedAtTheStart(
    authority: Authority, tmp_path: Path, certificate: str, key: str, reason: str
) -> None:
    time.sleep(1)  # `expired` was valid for the second of its making
    for start, address in (("start_grpc_server", "GRPC"), ("start_restful_server", "REST")):
        script = tmp_path / f"{start}.py"
        script.write_text(
            "import os\nfrom mindspore_serving import server\n"
            f"ssl = server.SSLConfig({authority.path(certificate)!r}, {authority.path(key)!r})\n"
            f"server.{start}(os.environ['SERVING_{address}_ADDRESS'], ssl_config=ssl)\n"
        )
        failing = ServerProcess(script)
        try:
            failing.start()
            assert failing.wait_exit(60) != 0
        finally:
            failing.kill()
        assert reason in failing.log


def make_folder(folder: Path) -> Path:
    folder.mkdir()
    return folder


def wait_until(done: Callable[[], bool], timeout: float = 60) -> None:
    until = time.monotonic() + timeout
    while not done():
        assert time.monotonic() < until, "not in time"
        time.sleep(0.2)
