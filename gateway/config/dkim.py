"""What a touchpoint signs with: which private keys are taken, and what is said about those that are not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.padding import PKCS1v15
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from gateway.config.document import Document
from gateway.config.draft import Draft, Entry
from gateway.config.files import why_unreadable
from gateway.config.rules_file import Touchpoint
from gateway.errors import Problem, Severity, Unavailable

PrivateKey = RSAPrivateKey | Ed25519PrivateKey

# RFC 8301 §3.2: signers use 1024 bits at least and should use 2048; verifiers need take no more than 4096.
SMALLEST_BITS: Final = 1024
ADVISED_BITS: Final = 2048
LARGEST_BITS: Final = 4096


def load_key(pem: str) -> PrivateKey:
    """Return the key in `pem` (PKCS#1 or PKCS#8, RSA or Ed25519). Raises ValueError with the end of a sentence that
    begins with the key's name.
    """
    if "PRIVATE KEY-----" not in pem:
        what = "a public key or a certificate" if "-----BEGIN " in pem else "no key"
        raise ValueError(f"holds {what}; it must be a private key in PEM (-----BEGIN PRIVATE KEY-----)")
    try:
        # Whether its numbers are primes takes OpenSSL 30 to 200 ms to find out, with the interpreter's lock held.
        # That they belong together is seen from one signature, in one.
        key = load_pem_private_key(pem.encode(), None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        raise ValueError("is locked by a password; write it without one: openssl pkey -in OLD -out NEW") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ValueError("cannot be read as a key; make a new one: openssl genrsa -out FILE 2048") from None
    if isinstance(key, Ed25519PrivateKey):
        return key
    if not isinstance(key, RSAPrivateKey):
        raise ValueError("is neither RSA nor Ed25519, and DKIM knows no other; make one: openssl genrsa -out FILE 2048")
    if not SMALLEST_BITS <= key.key_size <= LARGEST_BITS:
        raise ValueError(
            f"has {key.key_size} bits; receivers check keys of {SMALLEST_BITS} to {LARGEST_BITS} bits:"
            " openssl genrsa -out FILE 2048"
        )
    _prove(key)
    return key


def _prove(key: RSAPrivateKey) -> None:
    try:
        key.public_key().verify(key.sign(b"", PKCS1v15(), SHA256()), b"", PKCS1v15(), SHA256())
    except (ValueError, InvalidSignature):
        raise ValueError("is damaged: what it signs does not verify; put back a good copy") from None


def is_weak(key: PrivateKey) -> bool:
    return isinstance(key, RSAPrivateKey) and key.key_size < ADVISED_BITS


# --- what `check` says -----------------------------------------------------------------------------------------------

_LABEL: Final = r"[A-Za-z0-9](?:[A-Za-z0-9_-]*[A-Za-z0-9])?"
_NAME: Final = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")


def find_problems(draft: Draft, document: Document) -> Iterator[Problem]:
    """Yield what is wrong with the keys `dkim` of touchpoints, and what looks mistaken."""
    for entry in draft.touchpoints:
        touchpoint = entry.model
        if touchpoint is None or touchpoint.dkim is None:
            continue
        path = (*entry.path, "dkim")
        if touchpoint.provider != "custom":
            yield document.problem(
                path, f"dkim is for custom touchpoints: {touchpoint.provider} signs by itself; remove it"
            )
            continue
        if not touchpoint.is_outbound:
            yield document.problem(
                path, f'touchpoint "{touchpoint.id}" is inbound only and signs nothing', Severity.WARNING
            )
        yield from _check_names(document, entry, touchpoint)
        if not draft.files.is_copy:
            # The key is not part of the copy that runs when rules.toml is bad. If it has become bad meanwhile, this
            # touchpoint's mail waits, and nobody else's.
            yield from _check_key(document, entry, touchpoint)


def _check_names(document: Document, entry: Entry[Touchpoint], touchpoint: Touchpoint) -> Iterator[Problem]:
    dkim = touchpoint.dkim
    assert dkim is not None
    for key, value in (("selector", dkim.selector), ("domain", dkim.domain)):
        if not _NAME.fullmatch(value):
            hint = "; write it as xn--…" if not value.isascii() else ""
            yield document.problem((*entry.path, "dkim", key), f'dkim.{key} "{value}" is not a name in the DNS{hint}')
    for address in (touchpoint.address, *touchpoint.aliases):
        domain = address.rpartition("@")[2]
        if not _are_aligned(domain, dkim.domain):
            yield document.problem(
                (*entry.path, "dkim", "domain"),
                f"mail from {address} is signed for {dkim.domain}: unless both belong to one registered domain,"
                f" DMARC does not count the signature; sign for {domain}",
                Severity.WARNING,
            )
            return


def _are_aligned(one: str, other: str) -> bool:
    one, other = f".{one.lower()}", f".{other.lower()}"
    return one.endswith(other) or other.endswith(one)


def _check_key(document: Document, entry: Entry[Touchpoint], touchpoint: Touchpoint) -> Iterator[Problem]:
    """Only a key in a file: what else may hold it, the daemon sees and whoever runs `check` may not."""
    assert touchpoint.dkim is not None
    reference = touchpoint.dkim.private_key
    assert reference is not None
    path = (*entry.path, "dkim", "private_key")
    file = reference.path
    if file is None:
        return
    try:
        file.open("rb").close()
    except PermissionError as error:
        yield document.problem(
            path, f"dkim: {file} {why_unreadable(error)}; the daemon must be able to", Severity.WARNING
        )
        return
    except OSError:
        return  # said with all secrets that are missing: a warning, for it stops one touchpoint, not the others
    try:
        key = load_key(reference.resolve())
    except Unavailable as error:
        yield document.problem(path, f"dkim: {error}")
    except ValueError as error:
        yield document.problem(path, f"dkim: the key {reference} {error}")
    else:
        if is_weak(key):
            yield document.problem(
                path,
                f"dkim: the key {reference} has fewer than {ADVISED_BITS} bits, and some receivers give such a"
                " signature no weight; make a longer one under another selector",
                Severity.WARNING,
            )
