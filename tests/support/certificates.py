"""Certificates for tests, made by openssl."""

import subprocess
from pathlib import Path


class Authority:
    """Certificates in a folder: the root, an intermediate one that it signed, and what they issue."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "leaf").write_text("subjectAltName=DNS:localhost,IP:127.0.0.1\n")
        (folder / "authority").write_text("basicConstraints=critical,CA:TRUE\nkeyUsage=critical,keyCertSign\n")
        self.openssl(
            *"req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=root -keyout ca.key -out ca.crt".split(),
            *("-addext", "keyUsage=critical,keyCertSign"),
        )

    def openssl(self, *arguments: str) -> None:
        subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=60)

    def issue(self, name: str, *, issuer: str = "ca", days: int = 2, kind: str = "leaf") -> None:
        self.openssl(*f"req -newkey rsa:2048 -nodes -subj /CN={name} -keyout {name}.key -out {name}.csr".split())
        self.openssl(
            *f"x509 -req -days {days} -in {name}.csr -CA {issuer}.crt -CAkey {issuer}.key -CAcreateserial".split(),
            *f"-out {name}.crt -extfile {kind}".split(),
        )

    def path(self, name: str) -> str:
        return str(self.folder / name)


def server_and_client(folder: Path) -> Authority:
    """An authority in a folder, and certificates of a server and a client that it signed."""
    authority = Authority(folder)
    for name in ("server", "client"):
        authority.issue(name)
    return authority
