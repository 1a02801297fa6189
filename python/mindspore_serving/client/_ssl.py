"""How a client secures its channel."""

from __future__ import annotations

import pathlib
from typing import Any

import grpc

from mindspore_serving.client._checks import check_str


class SSLConfig:
    """The client's side of an SSL-enabled connection.

    Without any parameter the server is checked against grpcio's own root certificates.

    Args:
        certificate (str, optional): File holding the PEM-encoded certificate chain that the client shows to servers
            that verify their clients. Given together with `private_key` or not at all. Default: None.
        private_key (str, optional): File holding the PEM-encoded private key of `certificate`. Default: None.
        custom_ca (str, optional): File holding the PEM-encoded root certificates that the server is checked against.
            Default: None.

    Raises:
        RuntimeError: The type or value of the parameters are invalid, or only one of `certificate` and `private_key`
            is given.

    Examples:
        >>> from mindspore_serving.client import Client, SSLConfig
        >>> ssl_config = SSLConfig(certificate="client.crt", private_key="client.key", custom_ca="ca.crt")
        >>> client = Client("localhost:5500", "add", "add_common", ssl_config=ssl_config)
    """

    def __init__(
        self, certificate: str | None = None, private_key: str | None = None, custom_ca: str | None = None
    ) -> None:
        parameters = {"certificate": certificate, "private_key": private_key, "custom_ca": custom_ca}
        for name, value in parameters.items():
            if value is not None:
                check_str(name, value)
        if (certificate is None) != (private_key is None):
            given, missing = ("certificate", "private_key") if private_key is None else ("private_key", "certificate")
            raise RuntimeError(
                f"Parameters 'certificate' and 'private_key' should be given together, but '{given}' is "
                f"{parameters[given]!r} and '{missing}' is None"
            )
        self.certificate = certificate
        self.private_key = private_key
        self.custom_ca = custom_ca

    def channel_credentials(self) -> Any:
        """The grpc.ChannelCredentials made of the files as they are now.

        Raises:
            OSError: A file cannot be read.
        """
        return grpc.ssl_channel_credentials(
            root_certificates=_read(self.custom_ca),
            private_key=_read(self.private_key),
            certificate_chain=_read(self.certificate),
        )


def _read(path: str | None) -> bytes | None:
    return None if path is None else pathlib.Path(path).read_bytes()
