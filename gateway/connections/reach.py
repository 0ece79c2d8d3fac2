"""Reaching a provider's server: TLS that is always verified, and one plain line for whatever keeps us from it."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import socket
import ssl
from pathlib import Path

from gateway.config.values import Server
from gateway.errors import Unavailable


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Return a context that verifies name and chain: by `ca_file` alone, else the system's roots (SSL_CERT_FILE).

    Blocks for some milliseconds: call it in a thread, and share what comes back. Raises Unavailable.
    """
    try:
        context = ssl.create_default_context(cafile=None if ca_file is None else str(ca_file))
    except (OSError, ssl.SSLError) as error:
        raise Unavailable(f"ca_file {ca_file} cannot be used: {error}; it must hold certificates in PEM") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


async def dial(server: Server, *, seconds: float, source_address: str = "") -> socket.socket:
    """Return a connected socket to the first address that answers, each tried for `seconds`. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await asyncio.wait_for(
        loop.getaddrinfo(server.host, server.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP), seconds
    )
    failure: OSError = OSError(errno.EHOSTUNREACH, "no address")
    for family, kind, protocol, _, address in found:
        try:
            peer = socket.socket(family, kind, protocol)
        except OSError as error:  # this machine does not speak IPv6
            failure = error
            continue
        peer.setblocking(False)
        try:
            if source_address:
                peer.bind((source_address, 0))
            await asyncio.wait_for(loop.sock_connect(peer, address), seconds)
        except (OSError, TimeoutError) as error:
            peer.close()
            failure = error
        except BaseException:
            peer.close()
            raise
        else:
            return peer
    raise failure


def keep_alive(peer: socket.socket) -> None:
    """Let the kernel find out about a dead link: an idle connection behind a NAT dies without a word."""
    with contextlib.suppress(OSError):
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 120)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 30)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 4)
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 120_000)


def explain(server: Server, error: BaseException) -> str:
    """Return one line that names cause and remedy."""
    if isinstance(error, TimeoutError):
        return f"{server} did not answer in time; check host and port, and that no firewall drops the connection"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"{server}: {_about_certificate(server, error)}"
    if isinstance(error, ssl.SSLError):
        reason = (error.reason or str(error)).replace("_", " ").lower()
        return f"{server}: no TLS connection ({reason}); check that the port speaks TLS at once, or after STARTTLS"
    if isinstance(error, socket.gaierror):
        return f"{server.host} cannot be found ({error.strerror}); check the host name and this machine's DNS"
    if isinstance(error, ConnectionRefusedError):
        return f"{server} refused the connection; check host and port, or the server is down"
    if isinstance(error, ConnectionError):
        return f"{server} cut the connection; check that the port is the right one, or the server is in trouble"
    if isinstance(error, OSError):
        reason = error.strerror or str(error) or errno.errorcode.get(error.errno or 0, "unknown")
        return f"{server} cannot be reached: {reason}; check host, port and network"
    return f"{server}: {error}"


def is_about_certificate(error: BaseException) -> bool:
    """Waiting does not mend it: a person has to look."""
    return isinstance(error, ssl.SSLCertVerificationError)


def root_cause(error: BaseException) -> BaseException:
    """Return what a library wrapped: the innermost cause that is the operating system's or TLS's word."""
    found, cause = error, error.__cause__
    while cause is not None:
        if isinstance(cause, OSError):  # time-outs, TLS and name resolution among them
            found = cause
        cause = cause.__cause__
    return found


def _about_certificate(server: Server, error: ssl.SSLCertVerificationError) -> str:
    # X509_V_ERR_*: 10 expired, 9 not yet valid, 62 and 64 name, 2 and 18 to 21 an unknown issuer
    match error.verify_code:
        case 10:
            return "the server's certificate has expired; the provider must renew it (or check our clock)"
        case 9:
            return "the server's certificate is not yet valid; check this machine's clock"
        case 62 | 64:
            return f"the server's certificate is not for {server.host}; use the host name that the certificate has"
        case 2 | 18 | 19 | 20 | 21:
            return (
                "nobody we trust has issued the server's certificate; "
                "name a private authority in `ca_file`, or check for an interception of TLS"
            )
    return f"the server's certificate is not acceptable: {error.verify_message}"
