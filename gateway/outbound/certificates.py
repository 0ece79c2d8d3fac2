"""The listeners' certificate: read again when its files change, and only ever replaced by one that works."""

from __future__ import annotations

import ssl
from pathlib import Path

from gateway import events
from gateway.errors import Unavailable

_Stamp = tuple[tuple[int, int, int], ...]


class Certificates:
    """`context` is what new connections should use. Sessions that are open keep what they began with."""

    def __init__(self, certificate: Path, private_key: Path) -> None:
        """Raises Unavailable, with one line, when there is no usable pair to begin with."""
        self._certificate, self._private_key = certificate, private_key
        self._stamp = self._read_stamp()
        try:
            self.context = _load(certificate, private_key)
        except (OSError, ssl.SSLError) as error:
            raise Unavailable(_explain(certificate, private_key, error)) from error

    def refresh(self, certificate: Path, private_key: Path) -> bool:
        """Read the pair again if it has another name or has changed. Keep the old one, and say so, if it is no good.

        Return whether a new pair is in use. Cheap when nothing changed: asked every few seconds.
        """
        names = certificate, private_key
        stamp = self._read_stamp(*names)
        if names == (self._certificate, self._private_key) and stamp == self._stamp:
            return False
        self._certificate, self._private_key, self._stamp = certificate, private_key, stamp
        try:
            self.context = _load(certificate, private_key)
        except (OSError, ssl.SSLError) as error:
            events.fail("certificate-refused", cause=_explain(certificate, private_key, error), kept="the old one")
            return False
        events.say("certificate-loaded", file=str(certificate))
        return True

    def _read_stamp(self, *names: Path) -> _Stamp:
        stamp = []
        for path in names or (self._certificate, self._private_key):
            try:
                status = path.stat()
            except OSError:  # being replaced this very moment, or gone: loading tells
                stamp.append((0, 0, 0))
            else:
                stamp.append((status.st_mtime_ns, status.st_size, status.st_ino))
        return tuple(stamp)


def _load(certificate: Path, private_key: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2  # RFC 8996; said here, whatever the system's policy file says
    context.options |= ssl.OP_NO_RENEGOTIATION  # costs us much and a client little; OpenSSL before 3 allows it
    context.load_cert_chain(certificate, private_key, password="")  # without one OpenSSL would ask the terminal
    return context


def _explain(certificate: Path, private_key: Path, error: OSError | ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return f"{private_key} is not the key of {certificate}; name a pair that belongs together"
        return f"{certificate} with {private_key}: {error.reason or error}; both must be PEM, the key without password"
    return f"{error.filename or certificate}: {error.strerror or error}; the daemon must be able to read it"
