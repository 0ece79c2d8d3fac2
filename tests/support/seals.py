"""Who seals mail as agents' clients do, and who looks at the seal at the other end: openssl and gpg themselves."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.support.process import program

AGENT: Final = "signed@support.example"


@dataclass(frozen=True)
class Seal:
    """What openssl or gpg says of a message. `content`: what it protects, as far as it gives that."""

    holds: bool
    content: bytes
    words: str


class SMime:
    """A throwaway key for S/MIME (RFC 8551). `home`: an empty directory for it."""

    def __init__(self, home: Path) -> None:
        self._openssl = program("openssl", "openssl")
        self._key, self._certificate = home / "key.pem", home / "certificate.pem"
        subject = ["-subj", f"/CN=Agent/emailAddress={AGENT}", "-addext", "extendedKeyUsage=emailProtection"]
        made = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *subject]
        self._run(b"", *made, "-keyout", str(self._key), "-out", str(self._certificate))

    def detached(self, entity: bytes) -> bytes:
        """Return header fields and body of a multipart/signed; `entity`: a MIME part with CRLF."""
        return self._sign(entity)

    def opaque(self, entity: bytes) -> bytes:
        return self._sign(entity, "-nodetach")

    def encrypted(self, entity: bytes) -> bytes:
        done = self._run(entity, "cms", "-encrypt", "-binary", "-aes256", str(self._certificate))
        return _for_smtp(done.stdout)

    def verify(self, raw: bytes) -> Seal:
        trusted = ["-CAfile", str(self._certificate), "-purpose", "any"]
        return _seal(self._run(raw, "cms", "-verify", *trusted, check=False))

    def decrypt(self, raw: bytes) -> Seal:
        keys = ["-recip", str(self._certificate), "-inkey", str(self._key)]
        return _seal(self._run(raw, "cms", "-decrypt", *keys, check=False))

    def _sign(self, entity: bytes, *options: str) -> bytes:
        keys = ["-signer", str(self._certificate), "-inkey", str(self._key)]
        return _for_smtp(self._run(entity, "cms", "-sign", "-binary", *options, *keys).stdout)

    def _run(self, data: bytes, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run([self._openssl, *words], input=data, capture_output=True, check=check)


class Pgp:
    """A throwaway key for OpenPGP (RFC 3156, RFC 9580), in a directory of its own until `close()`."""

    def __init__(self) -> None:
        self._gpg = program("gpg", "gnupg")
        self._home = Path(tempfile.mkdtemp(prefix="gnupg-"))  # short: its agent's socket has 107 bytes at most
        self._run(b"", "--quick-generate-key", f"Agent <{AGENT}>", "ed25519", "sign", "1d")

    def close(self) -> None:
        subprocess.run([program("gpgconf", "gnupg"), "--homedir", str(self._home), "--kill", "all"], check=True)
        shutil.rmtree(self._home, ignore_errors=True)

    def detached(self, entity: bytes) -> bytes:
        """Return header fields and body of a multipart/signed (RFC 3156 §5); `entity`: a MIME part with CRLF."""
        armour = self._run(entity, "--armor", "--detach-sign").stdout.replace(b"\n", b"\r\n")
        return (
            b'Content-Type: multipart/signed; micalg="pgp-sha512";\r\n'
            b' protocol="application/pgp-signature"; boundary="seal"\r\n\r\n'
            b"--seal\r\n" + entity + b"\r\n--seal\r\n"
            b'Content-Type: application/pgp-signature; name="signature.asc"\r\n\r\n' + armour + b"\r\n--seal--\r\n"
        )

    def clear(self, text: bytes) -> bytes:
        """Return the text with its signature around it; `text`: lines with LF."""
        return _for_smtp(self._run(text, "--clearsign").stdout)

    def verify_detached(self, raw: bytes) -> Seal:
        """As a mail client: the part's octets as they stand, and the armour behind them."""
        found = re.search(rb"\r\n--seal\r\n(.*?)\r\n--seal\r\n.*?\r\n\r\n(.*?)\r\n--seal--", raw, re.S)
        assert found, raw
        armour, entity = self._home / "armour", self._home / "entity"
        armour.write_bytes(found[2])
        entity.write_bytes(found[1])
        return _seal(self._run(b"", "--verify", str(armour), str(entity), check=False), found[1])

    def verify_clear(self, text: bytes) -> Seal:
        return _seal(self._run(text, "--verify", check=False), text)

    def _run(self, data: bytes, *words: str, check: bool = True) -> subprocess.CompletedProcess[bytes]:
        quiet = ["--homedir", str(self._home), "--batch", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""]
        return subprocess.run([self._gpg, *quiet, *words], input=data, capture_output=True, check=check)


def _for_smtp(made: bytes) -> bytes:
    """What openssl writes around the entity ends its lines with LF."""
    return re.sub(rb"\r?\n", b"\r\n", made)


def _seal(done: subprocess.CompletedProcess[bytes], content: bytes | None = None) -> Seal:
    return Seal(done.returncode == 0, done.stdout if content is None else content, done.stderr.decode(errors="replace"))
