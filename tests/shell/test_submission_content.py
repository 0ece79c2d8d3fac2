"""What becomes of a message between the client's dot and the outbox: sender, header, signature."""

from __future__ import annotations

import smtplib
from collections.abc import Callable, Iterator
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from typing import Any

import pytest

from gateway import events
from gateway.errors import Unavailable
from gateway.model import read_id, show_id
from gateway.rules.conversation import thread_key
from tests.support.authority import Authority
from tests.support.submission import TOUCHPOINTS, Rig

SIGNATURE = {"active": True, "text": "{{ agent.name }}\n{{ touchpoint.name }}", "html": "<b>{{ agent.name }}</b>"}
BODY = "Hello Kim\r\n"
BROKEN = "{{ 1 // (subject | length - 13) }}"  # passes every check, and fails for the subject of these letters
ALTERNATIVE = (
    "--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n--b\r\nContent-Type: text/html\r\n\r\n<p>Hello</p>\r\n--b--\r\n"
)
AT = "{{ agent.name }} at {{ touchpoint.name }}"


@pytest.fixture
def make_rig(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(support: dict[str, Any] | None = None, **keys: Any) -> Rig:
        home = tmp_path / str(len(made))
        home.mkdir()
        touchpoints = [TOUCHPOINTS[0] | (support or {}), *TOUCHPOINTS[1:]]
        made.append(Rig(home, authority, touchpoints=touchpoints, **keys))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


@pytest.fixture
def rig(make_rig: Callable[..., Rig]) -> Rig:
    return make_rig()


def letter(*fields: str, sender: str = "support@example.com", body: str = BODY) -> str:
    head = [f"From: {sender}", "To: Kim <kim@clients.example>", "Subject: Your question", *fields]
    return "".join(f"{line}\r\n" for line in head) + f"\r\n{body}"


def submit(rig: Rig, message: str | bytes, login: str = "ana@example.com", path: str = "anything@example.net") -> bytes:
    """Submit; return what is stored."""
    client = rig.login(login)
    client.mail(path)
    client.rcpt("kim@clients.example")
    code, text = client.data(message)
    assert code == 250, text
    queue_id = read_id(text.split()[-1].decode())
    assert queue_id is not None
    return rig.stored(queue_id)


def refusal(rig: Rig, message: str | bytes, login: str = "ana@example.com") -> str:
    with pytest.raises(smtplib.SMTPDataError) as error:
        rig.login(login).sendmail("x@example.net", ["kim@clients.example"], message)
    assert rig.outbox() == []
    text = error.value.smtp_error
    return f"{error.value.smtp_code} {text.decode() if isinstance(text, bytes) else text}"


def parsed(raw: bytes) -> Message:
    return message_from_bytes(raw)


def tie(rig: Rig, touchpoint: str, message_id: str) -> None:
    """Put a conversation of one message into the store."""

    def fill(db: Any, items: Any) -> list[None]:
        number = rig.store.ids.next()
        db.execute(
            "INSERT INTO conversation (id, touchpoint, state, subject, sender, sender_name, priority, tags, first_at,"
            " last_at) VALUES (?, ?, 'open', '', '', '', 'normal', '[]', 0, 0)",
            (number, touchpoint),
        )
        db.execute("INSERT INTO thread (key, conversation) VALUES (?, ?)", (thread_key(touchpoint, message_id), number))
        return [None] * len(items)

    rig.store.submit(fill, None).result(timeout=10)


# --- who writes ------------------------------------------------------------------------------------------------------


def test_the_message_leaves_as_the_touchpoint_that_from_names(rig: Rig) -> None:
    submit(rig, letter())
    (message,) = rig.outbox()
    assert message["touchpoint"] == "support"
    assert message["agent"] == "ana@example.com"
    assert message["subject"] == "Your question"
    assert rig.woken == ["support"]


@pytest.mark.parametrize("path", ["ana@example.com", "eve@example.net", ""])
def test_the_return_path_is_the_touchpoints_whatever_the_client_says(rig: Rig, path: str) -> None:
    submit(rig, letter(), path=path)
    rows = rig.store.read(lambda db: db.execute("SELECT return_path FROM outbox").fetchall()).result(timeout=10)
    assert rows == [("support@example.com",)]


def test_writing_as_somebody_else_is_refused_and_names_what_is_allowed(rig: Rig) -> None:
    assert refusal(rig, letter(sender="billing@example.com")) == (
        "550 5.7.1 ana@example.com may not write as billing@example.com; set From to support@example.com"
    )


def test_two_authors_are_refused(rig: Rig) -> None:
    assert refusal(rig, letter(sender="support@example.com, eve@example.net")).startswith("550 5.6.0")
    assert refusal(rig, letter("From: eve@example.net")).startswith("550 5.6.0")


def test_the_own_address_becomes_the_agents_only_touchpoint(rig: Rig) -> None:
    stored = parsed(submit(rig, letter("Reply-To: ana@example.com", sender="Ana <ana@example.com>")))
    assert stored["From"] == "Example Support <support@example.com>"
    assert stored["Reply-To"] is None
    assert rig.outbox()[0]["touchpoint"] == "support"
    assert b"ana@" not in rig.stored(read_id(rig.outbox()[0]["id"]) or 0)


@pytest.mark.parametrize("field", ["In-Reply-To: <q@clients.example>", "References: <a@x> <q@clients.example>"])
def test_the_own_address_becomes_the_touchpoint_that_was_asked(rig: Rig, field: str) -> None:
    tie(rig, "billing", "<q@clients.example>")
    stored = parsed(submit(rig, letter(field, sender="ben@example.com"), login="ben@example.com"))
    assert stored["From"] == "=?utf-8?B?UmVjaG51bmdlbiBLw7Zsbg==?= <billing@example.com>"


def test_the_own_address_is_refused_where_nothing_decides(rig: Rig) -> None:
    reply = refusal(rig, letter(sender="ben@example.com"), login="ben@example.com")
    assert reply.endswith("choose the address to write as: set From to support@example.com, billing@example.com")


def test_the_own_address_is_refused_in_anothers_conversation(rig: Rig) -> None:
    tie(rig, "billing", "<q@clients.example>")
    reply = refusal(rig, letter("In-Reply-To: <q@clients.example>", sender="ana@example.com"))
    assert "this conversation is not yours" in reply


def test_the_own_address_is_refused_when_the_operator_says_so(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(submission={"own_address": "refuse"})
    assert "is a login, not an address" in refusal(rig, letter(sender="ana@example.com"))


# --- the header ------------------------------------------------------------------------------------------------------


def test_missing_fields_are_added_and_bcc_is_taken_out(rig: Rig) -> None:
    stored = parsed(submit(rig, letter("Bcc: secret@clients.example")))
    queue_id = rig.outbox()[0]["id"]
    assert stored["Message-ID"] == f"<{queue_id}@gateway.example>"
    assert stored["Date"]
    assert stored["Bcc"] is None
    assert rig.outbox()[0]["message_id"] == stored["Message-ID"]


def test_date_and_message_id_that_are_there_stay(rig: Rig) -> None:
    raw = submit(rig, letter("Date: Mon, 23 Nov 2026 10:00:00 +0000", "Message-ID: <mine@client.example>"))
    assert parsed(raw).get_all("Message-ID") == ["<mine@client.example>"]
    assert parsed(raw).get_all("Date") == ["Mon, 23 Nov 2026 10:00:00 +0000"]
    assert rig.outbox()[0]["message_id"] == "<mine@client.example>"


@pytest.mark.parametrize(
    ("from_name", "sender", "expected"),
    [
        ("touchpoint", '"Ana" <support@example.com>', "Example Support <support@example.com>"),
        ("touchpoint", "help@example.com", "Example Support <help@example.com>"),
        ("client", '"Ana at home"  <support@example.com>', '"Ana at home"  <support@example.com>'),
        ("client", "Ana at home <ana@example.com>", "Ana at home <support@example.com>"),
        (
            "{{ agent.name }} at {{ touchpoint.name }}",
            "support@example.com",
            "Ana Lima at Example Support <support@example.com>",
        ),
        (BROKEN, "support@example.com", "Example Support <support@example.com>"),
    ],
    ids=["touchpoint", "alias", "client", "client-rewritten", "template", "broken-template"],
)
def test_the_name_in_from(make_rig: Callable[..., Rig], from_name: str, sender: str, expected: str) -> None:
    rig = make_rig({"from_name": from_name, "aliases": ["help@example.com"]})
    assert parsed(submit(rig, letter(sender=sender)))["From"] == expected


def test_a_header_that_readers_may_take_differently_is_refused(rig: Rig) -> None:
    assert refusal(rig, "not a field\r\n" + letter()).startswith("550 5.6.0")


def test_mail_that_runs_in_a_loop_is_refused(rig: Rig) -> None:
    assert refusal(rig, letter(*["Received: by relay.example"] * 101)).startswith("554 5.4.6")


# --- signed mail and signatures --------------------------------------------------------------------------------------

SIGNED = (
    "Content-Type: multipart/signed; boundary=b; protocol=\"application/pgp-signature\"; micalg=pgp-sha256\r\n"
    "From: Ana <support@example.com>\r\nTo:  kim@clients.example\r\nBcc: x@clients.example\r\n"
    "Reply-To: ana@example.com\r\nSubject: signed\r\nMIME-Version: 1.0\r\n\r\n"
    "--b\r\nContent-Type: text/plain\r\n\r\nHello \r\n--b\r\nContent-Type: application/pgp-signature\r\n\r\n"
    "-----BEGIN PGP SIGNATURE-----\r\n-----END PGP SIGNATURE-----\r\n--b--\r\n"
)  # fmt: skip


def test_of_signed_mail_nothing_changes_but_what_is_in_front(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"signature": SIGNATURE})
    raw = submit(rig, SIGNED)
    assert raw.endswith(SIGNED.replace("Bcc: x@clients.example\r\n", "").encode())
    added = raw[: raw.index(b"Content-Type: multipart/signed")]
    assert [line.partition(b":")[0] for line in added.splitlines()] == [b"Date", b"Message-ID"]


def test_signed_mail_from_the_own_address_is_refused(rig: Rig) -> None:
    message = SIGNED.replace("<support@example.com>", "<ana@example.com>")
    assert "From is signed and cannot be changed" in refusal(rig, message)


def test_the_signature_is_in_text_and_html(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"signature": SIGNATURE})
    assert submit(rig, letter()).endswith(b"-- \r\nAna Lima\r\nExample Support\r\n")
    both = letter("MIME-Version: 1.0", "Content-Type: multipart/alternative; boundary=b", body=ALTERNATIVE)
    plain, rich = (str(part.get_payload()) for part in parsed(submit(rig, both)).walk() if not part.is_multipart())
    assert "-- \r\nAna Lima" in plain
    assert "<b>Ana Lima</b>" in rich


def test_a_signature_that_is_not_active_is_not_used(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig({"signature": SIGNATURE | {"active": False}})
    assert submit(rig, letter()).endswith(b"\r\n\r\nHello Kim\r\n")


class Workers:
    """Counts jobs; does them, or is away."""

    def __init__(self, away: bool = False) -> None:
        self.jobs = 0
        self._away = away

    async def run(self, function: Callable[..., Any], /, *args: object, timeout: float) -> Any:
        self.jobs += 1
        if self._away:
            raise Unavailable("the worker ran out of time")
        return function(*args)


def test_a_large_message_is_signed_by_a_worker(make_rig: Callable[..., Rig]) -> None:
    workers = Workers()
    rig = make_rig({"signature": SIGNATURE}, workers=workers)
    large = letter(body=("x" * 70 + "\r\n") * 2000)
    assert submit(rig, large).endswith(b"-- \r\nAna Lima\r\nExample Support\r\n")
    assert workers.jobs == 1
    submit(rig, letter())
    assert workers.jobs == 1


@pytest.mark.parametrize("broken", ["worker", "template"])
def test_a_signature_that_fails_is_left_out_and_said(make_rig: Callable[..., Rig], broken: str) -> None:
    text = BROKEN if broken == "template" else SIGNATURE["text"]
    rig = make_rig({"signature": SIGNATURE | {"text": text}}, workers=Workers(away=True))
    before = events.counts().get("signature-left-out", 0)
    body = ("x" * 70 + "\r\n") * 2000
    assert submit(rig, letter(body=body)).endswith(f"\r\n\r\n{body}".encode())
    assert events.counts()["signature-left-out"] == before + 1


def test_queue_ids_in_replies_lead_to_the_outbox(rig: Rig) -> None:
    client = rig.login()
    client.mail("x@example.net")
    client.rcpt("kim@clients.example")
    _, text = client.data(letter())
    assert text.decode() == f"2.0.0 queued as {rig.outbox()[0]['id']}"
    assert show_id(read_id(rig.outbox()[0]["id"]) or 0) == rig.outbox()[0]["id"]
