"""What SpamAssassin's daemon is asked, and what its answers mean. Source: its PROTOCOL file, version 1.5.

One request a connection; the client half-closes behind it. Lessons need a spamd that was started with `--allow-tell`.
"""

from __future__ import annotations

from typing import Final

from gateway.errors import Unavailable
from gateway.inbound.scoring import make_score
from gateway.model import Score
from gateway.text import clean

NAME: Final = "spamd"
PING: Final = b"PING SPAMC/1.5\r\n\r\n"
_SHOWN: Final = 200  # characters of an error


def ask_score(size: int) -> bytes:
    """Return what stands before a message of `size` bytes."""
    return _request("SYMBOLS", size)


def ask_lesson(size: int, is_spam: bool) -> bytes:
    """Return what stands before a message of `size` bytes. A lesson of the other kind is forgotten for it."""
    return _request("TELL", size, f"Message-class: {'spam' if is_spam else 'ham'}\r\nSet: local\r\n")


def _request(verb: str, size: int, more: str = "") -> bytes:
    return f"{verb} SPAMC/1.5\r\nContent-length: {size}\r\n{more}\r\n".encode("ascii")


def read_score(answer: bytes) -> Score:
    """Return the score in an answer. Raises Unavailable where there is none."""
    fields, body = _read(answer)
    verdict, _, figures = fields.get("spam", "").partition(";")  # `True ; 15.2 / 5.0`
    try:
        value = float(figures.partition("/")[0])
    except ValueError:
        raise Unavailable(f"{NAME} gives no score") from None
    if verdict.strip().lower() not in ("true", "false", "yes", "no"):
        raise Unavailable(f"{NAME} has answered in a form that we do not know")
    names = body.decode("ascii", "replace").replace("\n", ",").split(",")
    return make_score(NAME, value, (name.strip() for name in names))


def read_lesson(answer: bytes) -> str:
    """Return "": it has learned, or knew already (then it names nothing that it has set). Raises Unavailable."""
    _read(answer)
    return ""


def read_pong(answer: bytes) -> None:
    """Raises Unavailable for anything but the answer to PING."""
    _read(answer)


def _read(answer: bytes) -> tuple[dict[str, str], bytes]:
    """Return the fields, names in lower case, and what follows them. Raises Unavailable for a refusal."""
    head, _, body = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("ascii", "replace").split("\r\n")
    words = first.split(maxsplit=2)  # `SPAMD/1.1 0 EX_OK`
    if len(words) < 2 or not words[0].startswith("SPAMD/") or not words[1].isdecimal():
        raise Unavailable(f"{NAME} has answered in a form that we do not know")
    if int(words[1]) != 0:
        raise Unavailable(f"{NAME} answers {clean(' '.join(words[1:]), _SHOWN)}")
    fields = {}
    for line in lines:
        name, _, value = line.partition(":")
        fields[name.strip().lower()] = value.strip()
    return fields, body
