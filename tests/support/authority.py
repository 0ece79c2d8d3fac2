"""A private certificate authority for the servers of one test run."""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


@dataclass(frozen=True)
class Pair:
    """Files in PEM: a chain and its key."""

    certificate: Path
    private_key: Path


class Authority:
    """Issues certificates for loopback names. `ca_file` is what a client must trust."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._ca = trustme.CA()
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(self, name: str, *, expired: bool = False) -> Pair:
        now = datetime.now(UTC)
        cert = self._ca.issue_cert(
            "localhost",
            "127.0.0.1",
            "::1",
            not_before=now - timedelta(days=30),
            not_after=now - timedelta(days=1) if expired else now + timedelta(days=30),
        )
        pair = Pair(self.directory / f"{name}.pem", self.directory / f"{name}.key")
        pair.certificate.write_bytes(b"".join(part.bytes() for part in cert.cert_chain_pems))
        cert.private_key_pem.write_to_path(pair.private_key)
        return pair

    def client_context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca_file)
