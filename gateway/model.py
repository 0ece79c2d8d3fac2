"""The nouns that more than one room uses: immutable values, no behaviour that needs the world.

Everything that the admin configures (touchpoint, agent, rule …) is a noun of `gateway.config` and is not repeated
here. Times are aware UTC `datetime`s ending in `_at`; in the store they are integer milliseconds since the epoch.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import IntFlag, StrEnum
from typing import Final, Literal

# --- ids -------------------------------------------------------------------------------------------------------------

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"  # Crockford's base 32, lower case: nothing that is misread aloud
_DIGITS = {letter: value for value, letter in enumerate(_ALPHABET)}
_ID_EPOCH_MS = 1_735_689_600_000  # 2025-01-01: keeps ids at eight letters until 2059


def show_id(number: int) -> str:
    """Return the id as people see it, e.g. `1r7hq2x0` (at least seven letters)."""
    letters = []
    while number:
        number, digit = divmod(number, 32)
        letters.append(_ALPHABET[digit])
    return "".join(reversed(letters)).rjust(7, "0")


def read_id(text: str) -> int | None:
    """Return the number behind an id as typed by a person (case, o/0 and i/l/1 do not matter), or None."""
    number = 0
    for letter in text.strip().lower().translate(str.maketrans("oil", "011")):
        if (digit := _DIGITS.get(letter)) is None:
            return None
        number = number * 32 + digit
    return number if 0 < number < 1 << 46 else None


def id_at(ms: int) -> int:
    """Return the id that was handed out at a time, in ms since 1970, when ids had not run ahead of the clock."""
    return ms - _ID_EPOCH_MS


class IdSource:
    """Numbers for messages, conversations and outgoing mail alike: one sequence, so that an id never needs a kind.

    An id is milliseconds since 2025, or one more than the last when that is later: growing, short, and not used
    again when a store is set up afresh, because an attempt's trace id must not match an older store's Sent copy.
    Safe to call from every thread.
    """

    def __init__(self, last: int, now_ms: Callable[[], int]) -> None:
        self._last = last
        self._now_ms = now_ms
        self._lock = threading.Lock()

    def next(self) -> int:
        with self._lock:
            self._last = max(self._last + 1, self._now_ms() - _ID_EPOCH_MS)
            return self._last


def to_ms(at: datetime) -> int:
    """Return milliseconds since the epoch; the store's form of a time."""
    return round(at.timestamp() * 1000)


def from_ms(ms: int) -> datetime:
    return datetime.fromtimestamp(ms / 1000, UTC)


# --- inbound ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Location:
    """Where a message lies at the provider. A message may have several, and they change; the message stays."""

    folder: str
    uidvalidity: int
    uid: int


class Role(StrEnum):
    """What a watched folder is to us."""

    QUEUE = "queue"  # its mail goes into queues
    JUNK = "junk"  # its mail goes into quarantine
    SENT = "sent"  # its mail belongs to conversations that we have


@dataclass(frozen=True, slots=True)
class Staged:
    """A message whose chunks are in the store already, but for `chunks`, which go in with the row that owns them."""

    size: int
    chunks: tuple[tuple[int, bytes], ...] = field(repr=False)


class FilingAction(StrEnum):
    """What is still to be done with a message at the provider."""

    SEEN = "seen"
    ANSWERED = "answered"
    MOVE = "move"  # to the filing's target
    RELEASE = "release"  # out of Junk, to the first watched folder
    JUNK = "junk"  # into Junk


@dataclass(frozen=True, slots=True)
class Filing:
    """`target`: the folder of a MOVE, else ""."""

    action: FilingAction
    target: str = ""


class Placeholder(StrEnum):
    """What stands in a queue for a message that cannot be fetched."""

    HEADED = "headed"  # with the message's own header
    BLIND = "blind"  # not even its header could be had


@dataclass(frozen=True, slots=True)
class Arrival:
    """A message as it came in. `raw`: bytes as the provider gave them; where `staged` is set, only their beginning,
    which holds the header. `arrived_at`: when we took it.

    `follows`: the UID listed before this one, from which the cursor may move here. `fingerprint`, `object_id`: 64 bits
    each that know the message again under another UID; the first is made of what every provider lists without the
    body, the second of the id that some give (DESIGN §5). `filings`: what to do at the provider once it is stored.
    `listed_size`: of the message that a placeholder stands for.
    """

    id: int
    touchpoint: str
    location: Location
    internal_at: datetime
    arrived_at: datetime
    raw: bytes = field(repr=False)
    follows: int = 0
    fingerprint: int = 0
    object_id: int | None = None
    role: Role = Role.QUEUE
    staged: Staged | None = None
    filings: tuple[Filing, ...] = ()
    placeholder: Placeholder | None = None
    listed_size: int = 0

    @property
    def size(self) -> int:
        """Bytes of the message; of the one at the provider where this is a placeholder."""
        if self.placeholder is not None:
            return self.listed_size
        return self.staged.size if self.staged is not None else len(self.raw)


class MessageClass(StrEnum):
    HUMAN = "human"
    AUTO_REPLY = "auto-reply"
    BOUNCE = "bounce"
    LIST = "list"
    REPORT = "report"


class Priority(StrEnum):
    LOW = "low"
    NORMAL = "normal"
    HIGH = "high"


@dataclass(frozen=True, slots=True)
class Authentication:
    """Whether the sender is who they say: result words of RFC 8601 §2.7 in lower case, "" where it was not looked at.

    `policy`: what the author's domain asks for where DMARC fails: none, quarantine, reject; "" where that is not told.
    `by`: whose word that is: an authserv-id, or "us". `detail`: one line for people.
    """

    spf: str = ""
    dkim: str = ""
    dmarc: str = ""
    policy: str = ""
    by: str = ""
    detail: str = ""

    @property
    def fails_by_policy(self) -> bool:
        """Does the author's domain ask to distrust this message? Not one that only looks on (`p=none`, RFC 9989)."""
        return self.dmarc == "fail" and self.policy != "none"


@dataclass(frozen=True, slots=True)
class Score:
    """What a scanner said. `by`: which one; `symbols`: what it found, the weightiest first."""

    value: float
    by: str
    symbols: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attachment:
    """`name` decoded, "" where it has none; `type` as `image/png`, in lower case; `size`: bytes, decoded."""

    name: str
    type: str
    size: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What was found out about a message beyond its header, before the rules were asked. None: nobody asked, or it
    could not be found out; then no condition about it holds.

    `at`: when it was judged, which is what `hours` goes by. `block`: the pattern of a block that its sender meets, ""
    none. `no_score`: why the scanner said nothing. `body`: its text as people see it, bounded; it is not kept.
    """

    at: datetime | None = None
    block: str = ""
    authentication: Authentication | None = None
    score: Score | None = None
    no_score: str = ""
    known_sender: bool | None = None
    attachments: tuple[Attachment, ...] | None = None
    body: str | None = field(default=None, repr=False)


NO_FINDINGS = Findings()


@dataclass(frozen=True, slots=True)
class Step:
    """One line of an explanation: what was looked at, what it was, what followed. Shown by `explain` and `trace`."""

    step: str
    detail: str
    verdict: str


REPLY_TO: Final = "reply-to"
Answering = bool | Literal["reply-to"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the rule chain decided about one arrival, and why. `queues` is never empty.

    `priority_set`: a rule named the priority; only then does it change that of a conversation that continues.
    `auto_reply`: may it be answered automatically? "reply-to": yes, and to Reply-To, for a web form wrote it.
    `junk_alone`: it is in quarantine for no other reason than that it lies in the provider's Junk. `blocked`: its
    sender is, so that it belongs there.
    """

    message_class: MessageClass
    queues: tuple[str, ...]
    tags: tuple[str, ...] = ()
    priority: Priority = Priority.NORMAL
    priority_set: bool = False
    quarantine: bool = False
    junk_alone: bool = False
    blocked: bool = False
    discard: bool = False
    reroute: bool = False
    auto_reply: Answering = True
    trail: tuple[Step, ...] = ()


UNROUTED = "unrouted"  # the built-in queue for what no rule and no link places


def personal_queue(login: str) -> str:
    """Return the queue that holds an agent's notices."""
    return f"agent:{login}"


# --- outbound --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Reply:
    """An SMTP reply. `status` is the enhanced code (RFC 3463) or "" where the server gave none."""

    code: int
    status: str
    text: str

    def __str__(self) -> str:
        return " ".join(part for part in (str(self.code), self.status, self.text) if part)


class Notify(IntFlag):
    """What a sender wants to hear of (RFC 3461 §4.1). No flag at all is NEVER."""

    SUCCESS = 1
    FAILURE = 2
    DELAY = 4


@dataclass(frozen=True, slots=True)
class Wish:
    """Of one recipient (RFC 3461). `notify`: None where the client did not say; then failure and delay are told.

    `orcpt`: the parameter's value as the client gave it (`rfc822;bob@example.net`, xtext), "" where it did not.
    """

    notify: Notify | None = None
    orcpt: str = ""

    def wants(self, event: Notify) -> bool:
        return event in (Notify.FAILURE | Notify.DELAY if self.notify is None else self.notify)


NO_WISH = Wish()


@dataclass(frozen=True, slots=True)
class Envelope:
    """Return path ("" is the null return path) and recipients; never header fields.

    `wishes` follows the recipients, or is empty where nobody has any. `envid` (xtext), `ret` ("full", "hdrs", "" not
    said): RFC 3461 §4.3, §4.4.
    """

    return_path: str
    recipients: tuple[str, ...]
    eight_bit: bool = False  # BODY=8BITMIME was announced or the bytes need it
    smtputf8: bool = False
    wishes: tuple[Wish, ...] = ()
    envid: str = ""
    ret: str = ""


class OutboxKind(StrEnum):
    REPLY = "reply"  # written by an agent
    AUTO_REPLY = "auto-reply"
    NOTICE = "notice"


class Signed(StrEnum):
    """What became of the touchpoint's signature. Any other text says why one that was wanted is not in the message."""

    UNWANTED = ""
    PLACED = "placed"
    PRESENT = "present"  # the client sent it along: a draft that comes again
    EARLIER = "earlier"  # wanted in the first message of a conversation only, and this one is not


@dataclass(frozen=True, slots=True)
class Submission:
    """A message that we are about to accept responsibility for. `raw`: CRLF, signature and missing fields added.

    `signature`: a Signed, or why it was left out, in a few words. `signs_once`: it is wanted once in a conversation.
    """

    id: int
    touchpoint: str
    agent: str
    envelope: Envelope
    message_id: str
    subject: str
    accepted_at: datetime
    raw: bytes = field(repr=False)
    kind: OutboxKind = OutboxKind.REPLY
    references: tuple[str, ...] = ()  # In-Reply-To and References: they tie it to its conversation
    signature: str = Signed.UNWANTED
    signs_once: bool = False


class Fate(StrEnum):
    """What became of one attempt for one recipient."""

    ACCEPTED = "accepted"
    DEFERRED = "deferred"
    REFUSED = "refused"
    UNCERTAIN = "uncertain"  # the final dot may have been written and no answer was read


class Phase(StrEnum):
    """How far an SMTP transaction had come; a reply means different things in different phases."""

    CONNECT = "connect"
    LOGIN = "login"
    MAIL = "mail"
    RCPT = "rcpt"
    DATA = "data"
    DOT = "dot"


@dataclass(frozen=True, slots=True)
class Outcome:
    """The result of one attempt for one recipient. `detail` says in a sentence what happened where no reply came."""

    fate: Fate
    phase: Phase
    reply: Reply | None = None
    detail: str = ""
