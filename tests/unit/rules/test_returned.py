"""What a report means for the message that it names: who bounced, who is to blame, who hears of it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gateway.model import NO_WISH, Notify, OutboxKind, Wish
from gateway.rules.dsn import Action, Report, Told
from gateway.rules.returned import STRANGE, Sent, SentTo, interpret, queue_of_writer
from gateway.rules.undelivered import SENTENCES, Reason, is_hard, note_of, reason_of, sentence

BOB = SentTo(0, "Bob@example.net", True, NO_WISH)
ANN = SentTo(1, "ann@example.org", True, NO_WISH)
SENT = Sent(4711, OutboxKind.REPLY, "Ana@example.com", 7, "<order@example.com>", (BOB, ANN))
GONE = Told("bob@example.net", Action.FAILED, "5.1.1", 550, "user unknown")
SENTENCE = "Not delivered to bob@example.net: there is no such mailbox (550 5.1.1 user unknown)."


NOBODY = Told("", Action.FAILED, is_named=False)


def report(*told: Told, general: Told = NOBODY) -> Report:
    return Report(told, general=general)


def test_a_recipient_of_ours_has_bounced_and_the_address_is_to_blame() -> None:
    meaning = interpret(report(GONE), SENT)
    assert meaning.note == SENTENCE
    assert meaning.is_failure
    assert meaning.is_wanted
    assert meaning.bounced == ((0, SENTENCE),)
    assert meaning.hard == (("bob@example.net", SENTENCE),)


@pytest.mark.parametrize(
    ("told", "recipient"),
    [
        pytest.param(replace(GONE, address="eve@example.net"), BOB, id="never-written-to"),
        pytest.param(GONE, replace(BOB, is_sent=False), id="not-sent-yet"),
        pytest.param(replace(GONE, is_named=False), BOB, id="only-in-a-sentence"),
        pytest.param(replace(GONE, action=Action.DELAYED), BOB, id="delayed"),
        pytest.param(replace(GONE, status="4.1.1", code=450), BOB, id="temporary"),
        pytest.param(replace(GONE, status="5.2.2", said="mailbox full"), BOB, id="full"),
        pytest.param(replace(GONE, status="5.7.1", said="spam"), BOB, id="policy"),
        pytest.param(replace(GONE, address="robert@home.example", original="bob@example.net"), BOB, id="it-forwards"),
    ],
)
def test_an_address_is_not_blamed(told: Told, recipient: SentTo) -> None:
    assert interpret(report(told), replace(SENT, recipients=(recipient, ANN))).hard == ()


def test_where_the_message_went_to_one_address_that_is_who_is_meant() -> None:
    alone = replace(SENT, recipients=(BOB,))
    elsewhere = interpret(report(replace(GONE, address="robert@home.example")), alone)
    assert elsewhere.bounced == (
        (
            0,
            "Not delivered to Bob@example.net (it leads to robert@home.example): there is no such mailbox"
            " (550 5.1.1 user unknown).",
        ),
    )
    assert elsewhere.hard == ()
    nobody = interpret(report(general=Told("", Action.FAILED, "5.7.1", 554, "spam", is_named=False)), alone)
    assert nobody.note.startswith("Not delivered to Bob@example.net: the other server takes it for spam")
    assert [number for number, _ in nobody.bounced] == [0]
    assert nobody.hard == ()


def test_an_address_that_only_stands_in_the_text_counts_when_the_message_went_there() -> None:
    prose = [replace(GONE, is_named=False), replace(GONE, address="helpdesk@appliance.example", is_named=False)]
    meaning = interpret(report(*prose), SENT)
    assert meaning.bounced == ((0, SENTENCE),)
    assert meaning.note == SENTENCE


def test_a_stranger_in_a_report_about_several_is_told_and_nobody_has_bounced() -> None:
    meaning = interpret(report(replace(GONE, address="eve@example.net")), SENT)
    assert "eve@example.net" in meaning.note
    assert meaning.bounced == ()
    assert meaning.is_failure


def test_a_report_that_says_nothing_still_wants_to_be_seen() -> None:
    meaning = interpret(report(), SENT)
    assert (meaning.note, meaning.is_failure, meaning.is_wanted, meaning.bounced) == ("", True, True, ())


@pytest.mark.parametrize(
    ("action", "wish", "is_failure", "is_wanted"),
    [
        (Action.FAILED, NO_WISH, True, True),
        (Action.DELAYED, NO_WISH, False, True),
        (Action.DELIVERED, NO_WISH, False, False),
        (Action.DELIVERED, Wish(Notify.SUCCESS), False, True),
        (Action.RELAYED, Wish(Notify.SUCCESS), False, True),
        (Action.EXPANDED, Wish(Notify.SUCCESS), False, True),
        (Action.DELAYED, Wish(Notify.FAILURE), False, False),
        (Action.FAILED, Wish(Notify(0)), True, False),
    ],
)
def test_who_hears_of_it(action: Action, wish: Wish, is_failure: bool, is_wanted: bool) -> None:
    sent = replace(SENT, recipients=(replace(BOB, wish=wish), ANN))
    meaning = interpret(report(replace(GONE, action=action)), sent)
    assert (meaning.is_failure, meaning.is_wanted) == (is_failure, is_wanted)
    assert bool(meaning.bounced) is (action is Action.FAILED)


@pytest.mark.parametrize("kind", [OutboxKind.AUTO_REPLY, OutboxKind.NOTICE])
def test_nobody_is_bothered_about_mail_that_nobody_wrote(kind: OutboxKind) -> None:
    meaning = interpret(report(GONE), replace(SENT, kind=kind))
    assert not meaning.is_failure
    assert not meaning.is_wanted
    assert meaning.hard == (("bob@example.net", SENTENCE),)  # that it is no good is true all the same


def test_what_was_not_ours_says_so_unless_an_agent_sent_it_past_us() -> None:
    assert interpret(report(GONE), None).note == STRANGE + SENTENCE
    assert interpret(report(GONE), None, is_known=True).note == SENTENCE
    assert interpret(report(), None).note == ""
    assert not interpret(report(replace(GONE, action=Action.DELAYED)), None).is_failure
    for meaning in (interpret(report(GONE), None), interpret(report(GONE), None, is_known=True)):
        assert meaning.is_failure
        assert (meaning.bounced, meaning.hard) == ((), ())


def test_the_writers_queue_does_not_depend_on_the_case_of_the_login() -> None:
    assert queue_of_writer(SENT) == "agent:ana@example.com"


# --- sentences -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "code", "said", "reason", "hard"),
    [
        ("5.1.1", 550, "user unknown", Reason.NO_MAILBOX, True),
        ("5.1.1", 550, "", Reason.NO_MAILBOX, True),
        ("5.1.1", 550, "blocked by our list", Reason.POLICY, False),
        ("5.1.1", 550, "blocked: no such user", Reason.NO_MAILBOX, True),
        ("5.1.2", 550, "", Reason.NO_DOMAIN, True),
        ("5.1.10", 550, "RESOLVER.ADR.RecipientNotFound", Reason.NO_MAILBOX, True),
        ("5.4.310", 550, "DNS domain example.net does not exist", Reason.NO_DOMAIN, True),
        ("5.7.1", 550, "<bob@example.net>: Recipient address rejected: user unknown", Reason.NO_MAILBOX, True),
        ("5.7.1", 550, "message content rejected", Reason.POLICY, False),
        ("5.7.1", 554, "relay access denied", Reason.POLICY, False),
        ("5.7.26", 550, "unauthenticated", Reason.POLICY, False),
        ("5.0.0", 550, "no such user here", Reason.NO_MAILBOX, True),
        ("5.0.0", 550, "we do not like you", Reason.REFUSED, True),
        ("", 550, "", Reason.REFUSED, True),
        ("", 554, "your IP is listed in our blacklist", Reason.POLICY, False),
        ("5.2.1", 550, "account disabled", Reason.SWITCHED_OFF, True),
        ("5.2.1", 550, "receiving mail at a rate that is too high", Reason.BUSY, False),
        ("5.2.2", 552, "", Reason.FULL, False),
        ("", 552, "mailbox is over quota", Reason.FULL, False),
        ("4.2.2", 452, "", Reason.FULL, False),
        ("5.3.4", 552, "", Reason.TOO_LARGE, False),
        ("", 552, "message exceeds the maximum size", Reason.TOO_LARGE, False),
        ("5.4.6", 554, "", Reason.LOOP, False),
        ("", 554, "too many hops", Reason.LOOP, False),
        ("4.4.7", 0, "", Reason.EXPIRED, False),
        ("5.4.7", 0, "", Reason.EXPIRED, False),
        ("5.4.1", 0, "", Reason.UNREACHABLE, False),
        ("4.4.1", 0, "Connection timed out", Reason.UNREACHABLE, False),
        ("5.6.7", 553, "", Reason.CONTENT, False),
        ("4.7.0", 421, "greylisted", Reason.POLICY, False),
        ("", 0, "", Reason.UNSAID, False),
    ],
)
def test_the_reason(status: str, code: int, said: str, reason: Reason, hard: bool) -> None:
    told = Told("bob@example.net", Action.FAILED, status, code, said)
    assert reason_of(told) is reason
    assert is_hard(told) is hard
    assert sentence(told).startswith(f"Not delivered to bob@example.net: {reason.value}")
    assert sentence(told).endswith(".")


def test_of_many_recipients_a_note_names_the_first() -> None:
    told = [replace(GONE, address=f"u{number}@example.net") for number in range(SENTENCES + 3)]
    note = note_of(told)
    assert note.count("Not delivered") == SENTENCES
    assert note.endswith("The report names 3 more.")


def test_a_long_answer_does_not_make_a_long_sentence() -> None:
    assert len(sentence(replace(GONE, said="x" * 5_000, address="b" * 500 + "@example.net"))) < 400
