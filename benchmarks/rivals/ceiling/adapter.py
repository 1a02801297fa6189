"""Echoes of what ours would be sent: what the machine allows before any serving is done."""

from rivals.protocols import Echo, MsGrpc, MsRest
from rivals.rival import Rival, Start


def _rival(name: str, title: str, program: str, protocol: Echo, setting: str) -> Rival:
    def command(start: Start) -> list[str]:
        port = start.grpc_port if protocol.grpc else start.http_port
        return [
            str(start.build / "benchmarks" / program),
            "--port",
            str(port),
            *(["--max-mb", "64"] * (not protocol.grpc)),
        ]

    protocols = {"grpc" if protocol.grpc else "rest": protocol}
    return Rival(
        name, title, "ceiling", "mindspore-serving", protocols, (setting,), command,
        own_interpreter=True, ceiling=True, start_seconds=0.3,
    )  # fmt: skip


RIVALS = [
    _rival("echo-grpc", "bare gRPC echo", "bare_nghttp2_echo", Echo(MsGrpc()),
           "nghttp2 and epoll and nothing else; sent what ours is sent"),
    _rival("echo-rest", "REST echo", "rest_echo", Echo(MsRest()),
           "our HTTP/1.1 front-end without a worker; sent what ours is sent"),
]  # fmt: skip
