"""Keys for DKIM, in every form that an admin may have one in, and what the DNS says about them."""

from __future__ import annotations

from base64 import b64encode
from functools import cache

import dkim
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePrivateKey
from cryptography.hazmat.primitives.asymmetric.ec import generate_private_key as generate_ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, generate_private_key
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

Key = RSAPrivateKey | Ed25519PrivateKey | EllipticCurvePrivateKey
PKCS1, PKCS8 = PrivateFormat.TraditionalOpenSSL, PrivateFormat.PKCS8


@cache
def rsa(bits: int = 2048) -> RSAPrivateKey:
    return generate_private_key(65537, bits)


@cache
def ed25519() -> Ed25519PrivateKey:
    return Ed25519PrivateKey.generate()


@cache
def elliptic() -> EllipticCurvePrivateKey:
    return generate_ec(SECP256R1())


def pem_of(key: Key, form: PrivateFormat = PKCS8, password: str = "") -> str:
    lock = BestAvailableEncryption(password.encode()) if password else NoEncryption()
    return key.private_bytes(Encoding.PEM, form, lock).decode()


def public_pem_of(key: Key) -> str:
    return key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


class Dns:
    """The TXT records of signing domains. An instance is what dkimpy takes as `dnsfunc`."""

    def __init__(self, keys: dict[str, Key]) -> None:
        self._records: dict[bytes, bytes] = {}
        for name, key in keys.items():
            selector, _, domain = name.partition("@")
            if isinstance(key, Ed25519PrivateKey):
                public = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
                record = b"v=DKIM1; k=ed25519; p=" + b64encode(public)
            else:
                public = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
                record = b"v=DKIM1; k=rsa; p=" + b64encode(public)
            self._records[f"{selector}._domainkey.{domain}.".encode()] = record

    def __call__(self, name: bytes, timeout: int = 5) -> bytes | None:
        return self._records.get(name)

    def verifies(self, message: bytes) -> bool:
        """Return what another implementation than ours thinks of the first signature of `message`."""
        try:
            return bool(dkim.DKIM(message).verify(0, dnsfunc=self))
        except dkim.ValidationError:  # how it says that the body is another one
            return False
