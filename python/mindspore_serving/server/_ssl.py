"""TLS settings of the gRPC and RESTful servers."""

from __future__ import annotations

from mindspore_serving.server import _checks


class SSLConfig:
    """The files and rules with which a server encrypts its connections.

    Args:
        certificate (str): Path of the PEM file with the server's certificate chain.
        private_key (str): Path of the PEM file with the certificate's private key.
        custom_ca (str, optional): Path of the PEM file with the authorities that may sign clients' certificates. Needed
            when `verify_client` is True, ignored when it is False. Default: None.
        verify_client (bool, optional): True: clients must show a certificate signed by `custom_ca` (mutual
            authentication). False: only the server shows one. Default: False.

    Raises:
        RuntimeError: The type or value of a parameter is invalid.

    Examples:
        >>> from mindspore_serving import server
        >>>
        >>> ssl_config = server.SSLConfig(certificate="server.crt", private_key="server.key")
        >>> server.start_grpc_server("127.0.0.1:5500", ssl_config=ssl_config)
    """

    def __init__(
        self, certificate: str, private_key: str, custom_ca: str | None = None, verify_client: bool = False
    ) -> None:
        self.certificate: str = _checks.check_str("certificate", certificate)
        self.private_key: str = _checks.check_str("private_key", private_key)
        self.verify_client: bool = _checks.check_bool("verify_client", verify_client)
        if custom_ca is not None:
            _checks.check_str("custom_ca", custom_ca)
        elif verify_client:
            raise RuntimeError("Parameter 'custom_ca' should be given when 'verify_client' is True")
        self.custom_ca: str | None = custom_ca

    def __repr__(self) -> str:
        return (
            f"SSLConfig(certificate={self.certificate!r}, private_key={self.private_key!r}, "
            f"custom_ca={self.custom_ca!r}, verify_client={self.verify_client})"
        )
