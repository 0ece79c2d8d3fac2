"""What becomes of a wanted signature between the client's dot and the outbox: told, counted, once per conversation."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gateway import events
from gateway.model import read_id
from gateway.state import outbox, tracing
from gateway.state.outbox import Ask
from tests.support.authority import Authority
from tests.support.submission import TOUCHPOINTS, Rig

SIGNATURE = {"active": True, "text": "{{ agent.name }} of Example"}
SEALED = (
    "Content-Type: multipart/signed; boundary=b",
    "--b\r\nContent-Type: text/plain\r\n\r\nHello\r\n"
    "--b\r\nContent-Type: application/pgp-signature\r\n\r\nx\r\n--b--\r\n",
)


@pytest.fixture
def make_rig(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(**signature: Any) -> Rig:
        support = TOUCHPOINTS[0] | {"signature": SIGNATURE | signature}
        made.append(Rig(tmp_path, authority, touchpoints=[support, *TOUCHPOINTS[1:]]))
        return made[-1]

    yield make
    for rig in made:
        rig.close()


def send(
    rig: Rig, *fields: str, body: str = "Hello\r\n", login: str = "ana@example.com", sender: str = "support"
) -> tuple[int, bytes]:
    """Submit; return the queue id and what is stored."""
    client = rig.login(login)
    client.mail("anything@example.net")
    client.rcpt("kim@clients.example")
    head = (f"From: {sender}@example.com", "To: kim@clients.example", "Subject: Hello", *fields)
    code, text = client.data("".join(f"{line}\r\n" for line in head) + f"\r\n{body}")
    assert code == 250, text
    id = read_id(text.split()[-1].decode())
    assert id is not None
    return id, rig.stored(id)


def become(rig: Rig) -> list[str | None]:
    return [message["signature"] for message in rig.outbox()]


def unsigned(rig: Rig) -> dict[str, int]:
    return rig.store.read(outbox.count_unsigned).result(10)


def lines_of(rig: Rig, id: int) -> list[tuple[str, str]]:
    life = rig.store.read(tracing.life_of, id, lambda touchpoint: None).result(10)
    assert life is not None
    return [(step["detail"], step["verdict"]) for step in life if step["step"] == "signature"]


def test_what_became_of_it_is_kept_told_and_counted(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    before = events.counts().get("signature-left-out", 0)
    placed, raw = send(rig, "Message-ID: <1@x>")
    sealed, _ = send(rig, "Message-ID: <2@x>", SEALED[0], body=SEALED[1])
    present, again = send(rig, "Message-ID: <3@x>", body=raw.partition(b"\r\n\r\n")[2].decode())
    other, _ = send(rig, "Message-ID: <4@x>", sender="billing", login="ben@example.com")
    assert again.partition(b"\r\n\r\n")[2] == raw.partition(b"\r\n\r\n")[2]
    assert become(rig) == ["placed", "signed (RFC 1847)", "present", None]
    assert unsigned(rig) == {"support": 1}
    assert events.counts()["signature-left-out"] == before + 1
    assert lines_of(rig, placed) == [("the touchpoint's", "placed")]
    assert lines_of(rig, sealed) == [("signed (RFC 1847)", "left out")]
    assert lines_of(rig, present) == [("it was in the message already", "left as it was")]
    assert lines_of(rig, other) == []


def test_the_same_mail_again_is_neither_signed_nor_counted_again(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig()
    before = events.counts().get("signature-left-out", 0)
    first, _ = send(rig, "Message-ID: <2@x>", SEALED[0], body=SEALED[1])
    second, _ = send(rig, "Message-ID: <2@x>", SEALED[0], body=SEALED[1])
    assert first == second
    assert unsigned(rig) == {"support": 1}
    assert events.counts()["signature-left-out"] == before + 1


def test_first_means_once_in_a_conversation(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(when="first")
    answer = ("In-Reply-To: <1@x>", "References: <1@x>")
    send(rig, "Message-ID: <1@x>")
    _, raw = send(rig, "Message-ID: <2@x>", *answer)
    send(rig, "Message-ID: <3@x>", *answer, login="ben@example.com")  # a colleague's is the same touchpoint's
    send(rig, "Message-ID: <4@x>", "References: <1@x> <2@x>")
    send(rig, "Message-ID: <5@x>")  # another conversation
    send(rig, "Message-ID: <6@x>", "In-Reply-To: <never-seen@x>")
    assert raw.endswith(b"\r\n\r\nHello\r\n")
    assert become(rig) == ["placed", "earlier", "earlier", "earlier", "placed", "placed"]
    assert unsigned(rig) == {}


def test_what_went_without_or_never_went_does_not_count_as_the_first(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(when="first")
    send(rig, "Message-ID: <1@x>", SEALED[0], body=SEALED[1])
    second, _ = send(rig, "Message-ID: <2@x>", "In-Reply-To: <1@x>")
    rig.store.submit(outbox.cancel, Ask(0, second)).result(10)
    send(rig, "Message-ID: <3@x>", "In-Reply-To: <1@x>")
    send(rig, "Message-ID: <4@x>", "In-Reply-To: <1@x>")
    assert become(rig) == ["signed (RFC 1847)", "placed", "earlier"]  # what was cancelled is not listed


def test_always_means_in_every_message(make_rig: Callable[..., Rig]) -> None:
    rig = make_rig(when="always")
    send(rig, "Message-ID: <1@x>")
    _, raw = send(rig, "Message-ID: <2@x>", "In-Reply-To: <1@x>")
    assert raw.endswith(b"-- \r\nAna Lima of Example\r\n")
    assert become(rig) == ["placed", "placed"]


@pytest.mark.parametrize("strip", [False, True])
def test_the_clients_own_signature_goes_only_where_that_is_asked_for(make_rig: Callable[..., Rig], strip: bool) -> None:
    rig = make_rig(strip_client_signature=strip)
    _, raw = send(rig, body="Hello\r\n\r\n-- \r\nAna, from her phone\r\n")
    assert (b"from her phone" in raw) is not strip
    assert raw.count(b"Ana Lima of Example") == 1
