"""What clients ask for (RFC 3461), with a real relay: passed on to who knows it, else answered by ourselves."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.model import Envelope, Notify, Submission, Wish, read_id
from gateway.rules.dsn import Action, read_report
from gateway.state import conversations, outbox, raw
from gateway.state.raw import chunk_key
from tests.support.despatch import Despatch
from tests.support.outgoing import AGENT, raw_of
from tests.support.scripted import ScriptedProvider, Session

BOB, ANN, EVE = "bob@example.net", "ann@example.org", "eve@example.org"
WISHES = {BOB: Wish(Notify.SUCCESS, "rfc822;BOB+40example.net"), ANN: Wish(Notify(0)), EVE: Wish(None)}
PLAIN = ("PIPELINING", "8BITMIME", "AUTH PLAIN LOGIN")


def refuse(phase: str, argument: str, session: Session) -> str | None:
    return "550 5.1.1 no such user" if phase == "rcpt" and BOB not in argument else None


def play(tmp_path: Path, extensions: tuple[str, ...]) -> tuple[list[bytes], list[str]]:
    """Send one message to all three, of whom the provider takes Bob; return the notices and the provider's dialog."""
    secret = tmp_path / "secret"
    secret.write_text("open sesame")
    with ScriptedProvider(refuse, extensions=extensions) as provider:
        touchpoint: dict[str, Any] = {
            "id": "support", "address": "support@example.com", "name": "Support", "active": True,
            "direction": "outbound", "smtp": f"smtp+insecure://127.0.0.1:{provider.port}", "password": f"file:{secret}",
        }  # fmt: skip
        with Despatch(tmp_path / "gateway.db", [touchpoint]) as despatch:
            store = despatch.store
            id = store.ids.next()
            content = raw_of(id)
            envelope = Envelope(
                "support@example.com", tuple(WISHES), wishes=tuple(WISHES.values()), envid="o+2B1", ret="full"
            )
            submission = Submission(id, "support", AGENT, envelope, f"<{id}@x>", "Hi", datetime.now(UTC), content)
            store.submit(outbox.accept, outbox.Accepting(submission, ((chunk_key(id, 0), content),))).result(10)
            despatch.ring("support")
            despatch.wait_for({"delivered": 1, "refused": 2})
            found = store.read(conversations.list_conversations, f"agent:{AGENT}").result(10)
            ids = [store.read(conversations.show_conversation, _number(one["id"])).result(10) for one in found]
            notices = [store.read(raw.load, _number(one["messages"][0]["id"])).result(10) or b"" for one in ids if one]
        return notices, [command for session in provider.sessions for command in session.commands]


def _number(shown: str) -> int:
    number = read_id(shown)
    assert number is not None
    return number


@pytest.mark.parametrize("knows", [False, True])
def test_wishes_are_passed_on_or_answered(tmp_path: Path, knows: bool) -> None:
    notices, commands = play(tmp_path, (*PLAIN, "DSN") if knows else PLAIN)
    told = {one.action: one for raw in notices for one in read_report(raw).recipients}
    assert told[Action.FAILED].address == EVE  # never about Ann
    assert (Action.RELAYED in told) is not knows
    assert len(notices) == (1 if knows else 2)
    for report in map(read_report, notices):
        assert report.envelope_id == "o+1"
    failure = next(raw for raw in notices if b"Action: failed" in raw)
    assert b"message/rfc822" in failure
    assert b"Dear customer" in failure
    (mail,) = [one for one in commands if one.upper().startswith("MAIL")]
    rcpts = {one.partition("<")[2].partition(">")[0]: one for one in commands if one.upper().startswith("RCPT")}
    if knows:
        assert "RET=FULL" in mail.upper()
        assert "ENVID=o+2B1" in mail
        assert "NOTIFY=SUCCESS" in rcpts[BOB]
        assert "ORCPT=rfc822;BOB+40example.net" in rcpts[BOB]
        assert "NOTIFY=NEVER" in rcpts[ANN]
        assert "NOTIFY" not in rcpts[EVE]
    else:
        assert "ENVID" not in mail
        assert "RET=" not in mail
        assert not any("NOTIFY" in one or "ORCPT" in one for one in rcpts.values())
        assert told[Action.RELAYED].addresses == ("BOB@example.net", BOB)
