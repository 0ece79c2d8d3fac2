"""Should this message be answered automatically, and whom would the answer go to? People only, and no answer twice.

Sources: RFC 3834 §2, RFC 5230 §4.5 and §4.6, [MS-OXCMAIL] 2.2.3.2.14. In doubt there is no answer: a customer who gets
none has lost little, a machine that gets one may answer it.

Two of the signs are our own. Each automatic answer carries a token that only this gateway can make, so that it is known
again however it comes back; and the same token is in its Message-ID, so that what answers an automatic answer is known.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import lru_cache
from hashlib import blake2b
from typing import Final

from gateway.config.rules_file import AutoReply, Hours
from gateway.mime.scan import HeaderFacts, Mailbox
from gateway.model import REPLY_TO, Findings, MessageClass, Verdict, show_id
from gateway.rules.classify import auto_submitted

CONTINUES: Final = "it continues a conversation"  # where only new ones are answered
TOKEN_FIELD: Final = "X-Mail-Gateway-Answer"
_TOKEN_FIELD: Final = TOKEN_FIELD.lower()
_TOKEN_LETTERS: Final = 20
_DOMAIN_LETTERS: Final = 255
_KEY_LETTERS: Final = 254  # of an address in the ledger: RFC 5321 §4.5.3.1.3

_ADDRESSED: Final = ("to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc")  # RFC 5230 §4.5
_SUPPRESSING: Final = frozenset({"all", "oof", "autoreply"})
_BULK: Final = frozenset({"bulk", "list", "junk"})
_SENDABLE: Final = re.compile(r"[!-~]{1,64}@[!-~]{1,255}\Z")

# RFC 3834 §2, RFC 5230 §4.6, and the local parts that programs and their operators write from. Not the roles that
# people share (info, sales, support, webmaster): behind these are customers.
_MACHINES: Final = re.compile(
    r"(?:no|not|do[-_.]?not|dont|never|ne)[-_.]?(?:reply|respond|answer|responder|pas[-_.]?repondre)(?:[-_.+=].*)?|"
    r"(?:.*[-_.+])?no[-_.]?reply|nao[-_.]?responda|nicht[-_.]?antworten|keine[-_.]?antwort|"
    r"mailer[-_.]?daemon|mail[-_.]?daemon|mdaemon|postmaster|hostmaster|abuse|"
    r"list[-_]?serv|majordomo|mailman|sympa|ezmlm|"
    r"owner-.*|.*-(?:request|owner|bounces?|relay|confirm|subscribe|unsubscribe)|bounces?(?:[-+=._].*)?|"
    r"root|daemon|nobody|uucp|usenet|news|cron|www-data|wwwrun|httpd|apache|nginx|"
    r"auto[-_.]?(?:reply|responder|answer|mailer|mated)|vacation",
    re.IGNORECASE,
)
_BATV: Final = re.compile(r"(?:prvs|btv1)=[0-9a-z]+=+(?=[^=])", re.IGNORECASE)  # draft-levine-smtp-batv: one a day


@dataclass(frozen=True, slots=True)
class Asked:
    """What the question is about: the message, and what is known besides its header.

    `own`: the touchpoint's addresses, `ours`: those of all touchpoints; lower case. `is_wanted_now`: what `when` says
    of the hours at `at`. `key`: of the tokens.
    """

    facts: HeaderFacts
    verdict: Verdict
    findings: Findings
    internal_at: datetime
    at: datetime
    own: Collection[str]
    ours: Collection[str]
    max_age: timedelta
    is_wanted_now: bool
    key: bytes


@dataclass(frozen=True, slots=True)
class Addressee:
    """Whom to answer: the return path, and Reply-To only where a rule says so. `keys`: by which the ledger knows the
    sender, at least one. `is_form`: they filled in a form, so that From is the form's.
    """

    address: str
    name: str
    keys: tuple[str, ...]
    is_form: bool = False


def decide_answer(asked: Asked) -> Addressee | str:
    """Return whom to answer, or the reason for silence in a few words."""
    verdict, facts = asked.verdict, asked.facts
    if not verdict.auto_reply:
        return "a rule says no"
    if verdict.discard:
        return "it is discarded"
    if verdict.quarantine:
        return "it is in quarantine"
    if asked.internal_at + asked.max_age <= asked.at:
        return "it is older than max_age"
    if not asked.is_wanted_now:
        return "not at this hour"
    return (
        _own_mail(asked)
        or _nowhere(facts)
        or _machine(facts, verdict)
        or _sender(asked)
        or _stranger(asked)
        or (_writer(facts) if verdict.auto_reply == REPLY_TO else _addressee(facts))
    )


def hours_of(reply: AutoReply, hours: Mapping[str, Hours], at: datetime) -> tuple[bool, bool]:
    """Return whether it is open at `at`, by the hours that `when` names, or the only ones that there are; and whether
    an answer is wanted then.
    """
    name, _, state = reply.when.rpartition(":")
    if not name:
        (only,) = hours.values() if len(hours) == 1 else (None,)
        return only is None or only.is_open(at), True
    is_open = hours[name].is_open(at)
    return is_open, is_open == (state == "open")


# --- our own mail again ----------------------------------------------------------------------------------------------


def token(key: bytes, id: int) -> str:
    """Return what the automatic answer with this queue id carries: the id, and letters that only `key` can make."""
    shown = show_id(id)
    return f"{shown}.{blake2b(shown.encode(), digest_size=_TOKEN_LETTERS // 2, key=key).hexdigest()}"


def is_token(key: bytes, text: str) -> bool:
    """Return whether `text` is a token of ours."""
    shown, dot, letters = text.strip().partition(".")
    if not (dot and 0 < len(shown) <= 16 and shown.isascii() and letters.isascii()):
        return False
    made = blake2b(shown.encode(), digest_size=_TOKEN_LETTERS // 2, key=key).hexdigest()
    return hmac.compare_digest(made, letters)


def _own_mail(asked: Asked) -> str:
    facts, key = asked.facts, asked.key
    if facts.truncated:
        return "its header is too long to be read"
    if any(is_token(key, value) for value in facts.values(_TOKEN_FIELD)):
        return "it is an automatic answer of ours"
    if any(is_token(key, one.strip("<>").partition("@")[0]) for one in facts.in_reply_to):
        return "it answers an automatic answer of ours"
    return ""


# --- machines --------------------------------------------------------------------------------------------------------


def _machine(facts: HeaderFacts, verdict: Verdict) -> str:
    if (submitted := auto_submitted(facts)) not in ("", "no"):
        return f"Auto-Submitted: {submitted}"
    for value in facts.values("precedence"):
        if (word := value.strip().lower()) in _BULK:
            return f"Precedence: {word}"
    if field := next((name for name in sorted(facts.names) if name.startswith("list-")), None):
        return f"it has a field {field}"
    if facts.content_type == "multipart/report":
        return "it is a report"
    for value in facts.values("x-auto-response-suppress"):
        if _SUPPRESSING & {word.strip().lower() for word in value.split(",")}:
            return f"X-Auto-Response-Suppress: {value[:40]}"
    if verdict.message_class is not MessageClass.HUMAN:
        return f"its class is {verdict.message_class.value}"
    return ""


def _nowhere(facts: HeaderFacts) -> str:
    if (path := facts.return_path) is None:
        return "its return path is not known"
    if not path:
        return "its return path is null"
    if not _SENDABLE.match(path) or path.count("@") != 1:
        return "its return path cannot be answered"
    return ""


def _sender(asked: Asked) -> str:
    facts = asked.facts
    writers = [box.address for box in facts.reply_to if box.address]
    if asked.verdict.auto_reply != REPLY_TO:  # else the others are a form's, and perhaps ours
        writers = [facts.return_path or "", *(box.address for box in facts.authors if box.address), *writers]
        if facts.sender is not None:
            writers.append(facts.sender.address)
    ours = _names_of_all(frozenset(asked.ours))
    for address in writers:
        if _plain(address) in ours:
            return f"{address} is one of ours"
        if _MACHINES.fullmatch(_BATV.sub("", address.rpartition("@")[0][:_KEY_LETTERS])):
            return f"{address} is no person's"
    return ""


def _stranger(asked: Asked) -> str:
    """What a person wrote, and not to us; or what somebody else wrote in that person's name."""
    facts = asked.facts
    own = _names(asked.own)
    if not any(_plain(box.address) in own for name in _ADDRESSED if facts.has(name) for box in facts.mailboxes(name)):
        return "it is not addressed to the touchpoint"
    authentication = asked.findings.authentication
    if authentication is not None and authentication.fails_by_policy:
        return "DMARC fails: the sender is not who they say"
    return ""


def _addressee(facts: HeaderFacts) -> Addressee:
    path = facts.return_path or ""
    author: Mailbox = facts.from_
    keys = dict.fromkeys(ledger_key(one) for one in (path, author.address) if one)
    name = author.name if author.address.lower() == path.lower() else ""
    return Addressee(path, name, tuple(keys))


def _writer(facts: HeaderFacts) -> Addressee | str:
    """Return who filled in a form, by the only address of Reply-To (RFC 3834 §4)."""
    if len(facts.reply_to) != 1 or not _SENDABLE.match((box := facts.reply_to[0]).address):
        return "a rule wants Reply-To answered, which names no one address"
    return Addressee(box.address, box.name, (ledger_key(box.address),), is_form=True)


def _plain(address: str) -> str:
    """Return what the spellings of one person's address have in common: case, the part behind a `+`, and the day's tag
    of BATV.
    """
    local, at, domain = address.strip().lower().rpartition("@")
    local = _BATV.sub("", local)
    return f"{local.partition('+')[0] or local}{at}{domain}"


def ledger_key(address: str) -> str:
    """Return what the ledger knows the sender with this address by: one key for all spellings."""
    return _key(address)[:_KEY_LETTERS]


def _key(address: str) -> str:
    """Return that with the domain in ASCII. For few addresses: a domain of other letters costs half a millisecond."""
    local, at, domain = _plain(address).rpartition("@")
    if not domain.isascii() and len(domain) <= _DOMAIN_LETTERS:
        with suppress(UnicodeError):
            domain = domain.encode("idna").decode("ascii")
    return f"{local}{at}{domain}"


def _names(addresses: Iterable[str]) -> frozenset[str]:
    """Return these as `_plain`, with their domains also in the form that was not given: ours are few and known, and a
    header may hold thousands that would have to be brought into one form.
    """
    found: set[str] = set()
    for address in addresses:
        local, at, domain = (key := _key(address)).rpartition("@")
        found |= {_plain(address), key}
        if "xn--" in domain:
            with suppress(UnicodeError):
                found.add(f"{local}{at}{domain.encode('ascii').decode('idna').lower()}")
    return frozenset(found)


@lru_cache(maxsize=2)
def _names_of_all(addresses: frozenset[str]) -> frozenset[str]:
    return _names(addresses)


def references_for(facts: HeaderFacts) -> Sequence[str]:
    """Return References of an answer: those of the message, else its parent, then the message (RFC 5322 §3.6.4)."""
    before = facts.references or facts.in_reply_to[:1]
    return (*before, facts.message_id) if facts.message_id else before
