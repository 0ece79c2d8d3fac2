"""Checks the DKIM signatures (RFC 6376, 8301, 8463) and the ARC chain (RFC 8617) of a whole message: a worker's job.

dkimpy does it, which wants the message in memory several times over and 60 ms for each megabyte. It asks no DNS here:
the records are read ahead, in the daemon, by the names that `keys_of` and `arc_keys_of` give. A signature that covers
only part of the body (`l=`), or whose time is over (`x=`), is one that we do not accept: "policy" (RFC 8601 §2.7.1),
which is neither a pass nor a proof of anything.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

import dkim

from gateway.mime.scan import HeaderFacts
from gateway.rules.dns import domain_of

SIGNATURES: Final = 6  # of one message that are looked at; each costs a question and a pass over the message
SEALS: Final = 12  # longest ARC chain that is followed; RFC 8617 allows 50, and nobody trusts that many
_FIELDS: Final = 40  # signatures whose tags are read, to choose those that are looked at
_VALUE: Final = 8_192  # bytes of one field

Records = Mapping[str, str | None]  # by name; "": there is none; None: the DNS did not answer


@dataclass(frozen=True, slots=True)
class Signed:
    """What came of one signature. `word`: of RFC 8601 §2.7.1."""

    domain: str
    word: str
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Sealed:
    """One ARC set. `results`: its ARC-Authentication-Results without `i=`."""

    domain: str
    results: str


def keys_of(facts: HeaderFacts, author: str) -> tuple[str, ...]:
    """Return the names of the keys to ask for: those of the author's own domain first, for they decide DMARC."""
    tags = [_tags(value[:_VALUE]) for value in facts.raw_values("dkim-signature")[:_FIELDS]]
    names = [(domain, name) for one in tags if (domain := domain_of(one.get("d", ""))) and (name := _key_name(one))]
    own = [name for domain, name in names if _is_related(domain, author)]
    return tuple(dict.fromkeys([*own, *(name for _, name in names)]))[:SIGNATURES]


def arc_keys_of(facts: HeaderFacts) -> tuple[str, ...]:
    """Return the names of the keys of an ARC chain, () when there is none or it is too long to follow."""
    fields = (*facts.raw_values("arc-seal"), *facts.raw_values("arc-message-signature"))
    if not fields or len(fields) > 2 * SEALS:
        return ()
    return tuple(dict.fromkeys(filter(None, (_key_name(_tags(value[:_VALUE])) for value in fields))))


def check_dkim(raw: bytes, records: Records, at: float) -> list[Signed]:
    """Return what each signature comes to whose key is among the records.

    `at`: seconds since 1970; when the message came, which is what `t=` and `x=` are compared with.
    """
    try:
        message = dkim.DKIM(raw)
    except dkim.DKIMException as error:
        return [Signed("", "permerror", f"the header cannot be read: {error}")]
    fields = [value for name, value in message.headers if name.lower() == b"dkim-signature"]
    found: list[Signed] = []
    for index, value in enumerate(fields):
        tags = _tags(value[:_VALUE])
        name = _key_name(tags)
        if not name:
            found.append(Signed("", "permerror", "a signature that names no key"))
        elif name in records and len(found) < SIGNATURES:
            with _as_of(at):
                word, detail = _check_one(message, index, tags, records[name])
            found.append(Signed(domain_of(tags["d"]), word, detail))
    return found


def _check_one(message: Any, index: int, tags: Mapping[str, str], record: str | None) -> tuple[str, str]:
    """Return the word for one signature, and why."""
    if record is None:
        return "temperror", "the DNS did not say what its key is"
    if not record:
        return "permerror", "the DNS has no key for it"
    if tags.get("a", "").lower() == "rsa-sha1":  # RFC 8301 §3.1
        return "permerror", "rsa-sha1 proves nothing any more"
    try:
        tagged, covered, fields = message.verify_headerprep(index)
        message.pk, message.keysize, message.ktag, message.seqtlsrpt = dkim.load_pk_from_dns(
            b"", dnsfunc=lambda name, timeout: record.encode("latin-1", "replace")
        )
        is_good = message.verify_sig_process(tagged, covered, fields[index], None)
    except dkim.KeyFormatError as error:
        return "permerror", f"its key cannot be used: {error}"
    except dkim.ValidationError as error:
        if "x= value is past" in str(error):
            return "policy", "it had expired"
        if "body hash mismatch" in str(error):
            return "fail", "the body is not what was signed"
        return "permerror", str(error)
    except dkim.DKIMException as error:
        return "permerror", str(error)
    except (binascii.Error, ValueError, TypeError, KeyError, IndexError) as error:  # what dkimpy does not catch
        return "permerror", f"it makes no sense: {type(error).__name__}"
    if not is_good:
        return "fail", "the header is not what was signed"
    if "l" in tags:
        return "policy", "it covers only part of the body"
    return "pass", ""


def check_arc(raw: bytes, records: Records, at: float) -> list[Sealed] | None:
    """Return the sets of an ARC chain that holds, the newest first; None when it does not hold, [] when there is none.

    A key that is not among the records breaks it.
    """

    def ask(name: bytes, timeout: float = 0) -> bytes:
        return (records.get(name.decode("ascii", "replace").rstrip(".").lower()) or "").encode("latin-1", "replace")

    try:
        with _as_of(at):
            verdict, sets, _ = dkim.ARC(raw).verify(dnsfunc=ask)
    except (dkim.DKIMException, binascii.Error, ValueError, TypeError, KeyError, IndexError):
        return None
    if verdict == dkim.CV_None:
        return []
    if verdict != dkim.CV_Pass:
        return None
    return [
        Sealed(
            domain_of(one["as-domain"].decode("ascii", "replace")),
            re.sub(r"^\s*i\s*=\s*\d+\s*;", "", one["aar-value"].decode("utf-8", "replace")),
        )
        for one in sets
    ]


@contextmanager
def _as_of(at: float) -> Iterator[None]:
    """Have dkimpy go by the time at which the message came. It asks its module's clock, and takes no other; a worker
    process does one thing at a time.
    """
    now, dkim.time = dkim.time, _Clock(at)
    try:
        yield
    finally:
        dkim.time = now


class _Clock:
    def __init__(self, at: float) -> None:
        self._at = at

    def time(self) -> float:
        return self._at


def _tags(value: bytes) -> dict[str, str]:
    """Return the tags of a signature, blanks inside values taken out (RFC 6376 §3.2)."""
    tags: dict[str, str] = {}
    for part in value.decode("utf-8", "replace").split(";")[:50]:
        name, equals, text = part.partition("=")
        if equals:
            tags.setdefault(name.strip().lower(), "".join(text.split()))
    return tags


def _key_name(tags: Mapping[str, str]) -> str:
    selector, domain = tags.get("s", ""), domain_of(tags.get("d", ""))
    return domain_of(f"{selector}._domainkey.{domain}") if selector and domain else ""


def _is_related(domain: str, author: str) -> bool:
    return domain == author or author.endswith(f".{domain}") or domain.endswith(f".{author}")


def signers_of(found: Sequence[Signed]) -> tuple[str, ...]:
    """Return the domains whose signatures pass."""
    return tuple(dict.fromkeys(one.domain for one in found if one.word == "pass"))
