"""What rspamd is asked over HTTP, and what its answers mean. Source: rspamd 3.4, and its pages on the protocol.

A normal worker scores (`/checkv2`) and knows no lessons; its controller does both (`/learnspam`, `/learnham`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Final

from gateway.errors import Unavailable
from gateway.inbound.scoring import Letter, make_score
from gateway.model import Score
from gateway.text import clean

NAME: Final = "rspamd"
CHECK: Final = "/checkv2"
PING: Final = "/ping"
_OK: Final = 200
_NOT_LEARNED: Final = 204  # it could, and its conditions say that it should not: the class is clear to it already
_ALREADY: Final = (208, 404)  # newer ones, and 3.4; the text tells it from a path that is not there
_ADDRESS: Final = re.compile(r"[\w!#$%&'*+/=?^`{|}~.-]{1,64}@[\w.-]{1,189}", re.ASCII)  # RFC 5321 §4.5.3.1
_WORD: Final = re.compile(r"[\w.:\[\]-]{1,254}", re.ASCII)
_SHOWN: Final = 200  # characters of an error

# What these mean is that a mail server did not say by which name the client is known. We are none, and never say it:
# 2.5 points for every message.
_NOT_TO_ASK: Final = json.dumps({"symbols_disabled": ["HFILTER_HOSTNAME_UNKNOWN", "RDNS_NONE"]})


def learn_path(is_spam: bool) -> str:
    return "/learnspam" if is_spam else "/learnham"


def describe(letter: Letter) -> list[tuple[str, str]]:
    """Return the fields that tell rspamd of the envelope. What is not plain is left out: it could not be sent, or would
    be held against the message (8 points for a return path that cannot be read).
    """
    addresses = {"From": letter.return_path or "", "Rcpt": letter.recipient, "Deliver-To": letter.recipient}
    words = {"Queue-Id": letter.id, "IP": letter.ip, "Helo": letter.helo if letter.ip else ""}
    return [
        *((name, address) for name, address in addresses.items() if _ADDRESS.fullmatch(address)),
        *((name, word) for name, word in words.items() if _WORD.fullmatch(word)),
        ("Settings", _NOT_TO_ASK),
    ]


def read_score(status: int, reason: str, body: bytes) -> Score:
    """Return the score in an answer. Raises Unavailable where there is none.

    What a rule of its own has decided without a look at the rest (`is_skipped`) has a score as well.
    """
    if status != _OK:
        raise Unavailable(f"{NAME} answers {status} {_error(body) or clean(reason, _SHOWN)}".rstrip())
    found = _object(body)
    if "score" not in found:
        raise Unavailable(f"{NAME} gives no score{': ' if _error(body) else ''}{_error(body)}")
    symbols = found.get("symbols")
    weights = {name: _weight(one) for name, one in symbols.items()} if isinstance(symbols, dict) else {}
    names = sorted((name for name, weight in weights.items() if weight), key=lambda name: -abs(weights[name]))
    return make_score(NAME, found["score"], names)


def _weight(symbol: object) -> float:
    value = symbol.get("score") if isinstance(symbol, Mapping) else None
    return value if isinstance(value, int | float) and value == value else 0.0


def read_lesson(status: int, reason: str, body: bytes) -> str:
    """Return "" when rspamd has learned or knew already, else why it will not. Raises Unavailable: it may yet."""
    said = _error(body) or clean(reason, _SHOWN)
    if status == _OK and not _error(body):
        return ""
    if status in _ALREADY and "already" in said:
        return ""
    if status == _NOT_LEARNED:
        return said or "it does not say why"
    raise Unavailable(f"{NAME} answers {status} {said}".rstrip())


def _object(body: bytes) -> dict[str, Any]:
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        raise Unavailable(f"{NAME} has not answered in JSON") from None
    if not isinstance(found, dict):
        raise Unavailable(f"{NAME} has answered in a form that we do not know")
    return found


def _error(body: bytes) -> str:
    try:
        error = _object(body).get("error")
    except Unavailable:
        return ""
    return clean(error, _SHOWN) if isinstance(error, str) else ""
