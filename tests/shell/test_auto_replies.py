"""Automatic answers with the real door and the real store: people get one, in time, and nobody gets two."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from gateway.bridge import open_bridge
from gateway.commands_answers import COMMANDS
from gateway.config import Config, load
from gateway.desk import Desk
from gateway.errors import CommandError
from gateway.inbound.intake import Intake
from gateway.model import Arrival, Location, Role, read_id, to_ms
from gateway.outbound.answers import AutoReplies
from gateway.outbound.auto_reply import Composed, Draft, compose_answer
from gateway.state import conversations, folders, marks, outbox, raw
from gateway.state.blocks import Blocks
from gateway.state.folders import Folder, Opening
from gateway.state.store import Store, Tuning
from gateway.workers import WorkerPool

NOW = datetime.now(UTC).replace(microsecond=0)
CARLA = "carla@customer.example"
PNG = b"\x89PNG\r\n\x1a\n" + bytes(60)

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
aliases = ["help@example.com"]
name = "Support"
active = true
imap = "imaps://imap.example.com"
smtp = "{smtp}"
password = "env:SECRET"
linked_queues = ["support"]
variables = {{ phone = "+351 21 000 0000" }}

[touchpoint.auto_reply]
active = true
subject = "Auto: {{{{ subject }}}}"
html = '''<p>Dear {{{{ sender.name | default("customer") }}}},</p><img src="file:logo.png">
<a href="tel:+351 21">{{{{ touchpoint.phone }}}}</a>'''
{more}

[[touchpoint]]
id = "sales"
address = "sales@example.com"
name = "Sales"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["sales"]

[hours.office]
timezone = "UTC"
open = ["mon-sun 00:00-24:00"]

[[rule]]
name = "contact form"
if = {{ return_path = "www-data@www.example.com" }}
then = {{ auto_reply = "reply-to" }}

[[rule]]
name = "quiet"
if = {{ subject = "*hush*" }}
then = {{ auto_reply = false }}
"""


class House:
    """A store, its intake, and a clock that stands where the test puts it."""

    def __init__(self, store: Store, config: Config, *, is_new: bool = True) -> None:
        self.store, self.config, self.now = store, config, NOW
        self.rung: list[str] = []
        self.alarms: list[int | None] = []
        replies = AutoReplies(
            store, on_given=self.rung.append, alarm=lambda _, most: self.alarms.append(most), now=lambda: self.now
        )
        self.intake = Intake(store, lambda: self.config, now_ms=lambda: to_ms(self.now), answers=replies)
        self._uid = 0
        if not is_new:
            return
        folder = Folder("support", "INBOX", 1, 0, 0, to_ms(NOW - timedelta(days=30)), 0)
        store.submit(folders.open_folder, Opening(folder, ())).result(5)

    async def bring(self, *letters: bytes, role: Role = Role.QUEUE, internal_at: datetime | None = None) -> list[str]:
        """Take letters in; return the last step of each one's trail, as `detail → verdict`."""
        arrivals = []
        for letter in letters:
            self._uid += 1
            location = Location("INBOX", 1, self._uid)
            at = internal_at or self.now
            arrivals.append(
                Arrival(
                    self.store.ids.next(),
                    "support",
                    location,
                    at,
                    self.now,
                    letter,
                    self._uid - 1,
                    self._uid,
                    role=role,
                )
            )
        await self.intake.accept(arrivals)
        return [self.trail(arrival.id)[-1] for arrival in arrivals]

    def trail(self, id: int) -> list[str]:
        def look(db: Any) -> str:
            return str(db.execute("SELECT trail FROM message WHERE id = ?", (id,)).fetchone()[0])

        steps = json.loads(self.store.read(look).result(5))
        return [f"{one['step']}: {one['detail']} → {one['verdict']}" for one in steps]

    def outbox(self) -> list[dict[str, Any]]:
        return self.store.read(outbox.list_outbox, True).result(5)

    def answers(self) -> list[EmailMessage]:
        found = []
        for one in self.outbox():
            content = self.store.read(raw.load, read_id(one["id"])).result(5)
            message = message_from_bytes(content or b"", policy=policy.SMTP)
            assert isinstance(message, EmailMessage)
            found.append(message)
        return found


Open = Callable[..., House]


@pytest.fixture
def open_house(tmp_path: Path) -> Iterator[Open]:
    stores: list[Store] = []

    def open_one(more: str = "", smtp: str = "smtps://smtp.example.com") -> House:
        (tmp_path / "logo.png").write_bytes(PNG)
        (tmp_path / "rules.toml").write_text(RULES.format(more=more, smtp=smtp))
        (tmp_path / "gateway.toml").write_text(f'hostname = "gw.example.com"\nstate_dir = "{tmp_path}"\n')
        stores.append(Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF")))
        return House(stores[0], load(tmp_path / "gateway.toml"))

    yield open_one
    for store in stores:
        store.close()


def letter(
    number: int = 1, sender: str = CARLA, subject: str = "Where is it?", more: str = "", path: str | None = None
) -> bytes:
    return (
        f"Return-Path: <{sender if path is None else path}>\r\nFrom: Carla Costa <{sender}>\r\n"
        f"To: support@example.com\r\nSubject: {subject}\r\nMessage-ID: <{number}@customer.example>\r\n{more}"
        "\r\nHello\r\n"
    ).encode()


async def test_a_person_is_answered_once_under_a_header_that_stops_loops(open_house: Open) -> None:
    house = open_house()
    (step,) = await house.bring(letter())
    (entry,) = house.outbox()
    (answer,) = house.answers()
    assert step == f"auto-reply: to {CARLA} → answered by {entry['id']}"
    assert [one["address"] for one in entry["recipients"]] == [CARLA]
    assert house.rung == ["support"]
    assert answer["From"] == "Support <support@example.com>"
    assert answer["To"] == f"Carla Costa <{CARLA}>"
    assert answer["Subject"] == "Auto: Where is it?"
    assert answer["In-Reply-To"] == answer["References"] == "<1@customer.example>"
    assert answer["Auto-Submitted"] == "auto-replied"
    assert answer["X-Auto-Response-Suppress"] == "All"
    assert answer["Precedence"] is None
    html, text = answer.get_body(("html",)), answer.get_body(("plain",))
    assert html is not None
    assert text is not None
    assert "Dear Carla Costa," in html.get_content()
    assert "Dear Carla Costa," in text.get_content()
    assert "+351 21 000 0000" in text.get_content()
    (image,) = [part for part in answer.walk() if part.get_content_type() == "image/png"]
    assert image.get_content() == PNG
    assert f"cid:{image['Content-ID'].strip('<>')}" in html.get_content()
    assert 'href="tel:+35121"' in html.get_content()


def said(*steps: str) -> list[str]:
    """Return what the steps say, without the id of an answer."""
    return [step.partition(": ")[2].partition(" by ")[0] for step in steps]


GIVEN = f"to {CARLA} → answered"
HAD_ONE = "its sender has had one in this period → no answer"


async def test_a_second_one_in_the_period_gets_none_and_the_next_period_begins_with_one(open_house: Open) -> None:
    house = open_house('every = "7 days"\non = "every-message"')
    assert said(*await house.bring(letter(1))) == [GIVEN]
    house.now += timedelta(days=7) - timedelta(seconds=1)
    assert said(*await house.bring(letter(2), letter(3, sender="Carla+again@customer.example"))) == [HAD_ONE] * 2
    house.now += timedelta(seconds=1)
    assert said(*await house.bring(letter(4))) == [GIVEN]
    assert len(house.outbox()) == 2


FORM = ("support@example.com", "www-data@www.example.com")  # who a form writes as: From and return path


async def test_who_fills_in_a_form_that_a_rule_knows_is_answered_in_their_own_name(open_house: Open) -> None:
    house = open_house()
    carla, dario = (f"Reply-To: {name}\r\n" for name in (f"Carla Reis <{CARLA}>", "dario@customer.example"))
    steps = [await house.bring(letter(n, *FORM[:1], more=who, path=FORM[1])) for n, who in enumerate((carla, dario))]
    assert said(*steps[0], *steps[1]) == [GIVEN, "to dario@customer.example → answered"]
    assert {answer["To"] for answer in house.answers()} == {f"Carla Reis <{CARLA}>", "dario@customer.example"}
    texts = [body.get_content() for answer in house.answers() if (body := answer.get_body(("plain",)))]
    assert sorted(text.split(",")[0] for text in texts) == ["Dear Carla Reis", "Dear customer"]
    assert said(*await house.bring(letter(3))) == [HAD_ONE]  # who has had one by a form


async def test_who_is_forgotten_has_one_again(open_house: Open) -> None:
    house = open_house('every = "7 days"\non = "every-message"')
    await house.bring(letter(1), letter(2, sender="dario@customer.example"))

    async def ask(command: str, **args: Any) -> Any:
        desk = Desk(lambda: house.config, house.store, None, None, None, str, None, str, Blocks(()))  # type: ignore[arg-type]
        return await COMMANDS[command](desk, args)

    listed = await ask("auto-reply.list")
    assert {one["address"] for one in listed} == {CARLA, "dario@customer.example"}
    assert all(one["touchpoint"] == "support" and one["at"] < one["until"] and one["outbox"] for one in listed)
    assert await ask("auto-reply.list", touchpoint="sales") == []
    with pytest.raises(CommandError, match=r"auto-reply list support --all"):
        await ask("auto-reply.forget", touchpoint="support", address="elsa@customer.example")
    done = await ask("auto-reply.forget", touchpoint="help@example.com", address="Carla+x@customer.example")
    assert done == {"touchpoint": "support", "address": CARLA, "forgotten": 1}
    assert said(*await house.bring(letter(3), letter(4, sender="dario@customer.example"))) == [GIVEN, HAD_ONE]
    assert (await ask("auto-reply.forget", touchpoint="support"))["forgotten"] == 2
    assert await ask("auto-reply.list", all=True) == []


async def test_seconds_count_and_so_does_a_restart(open_house: Open) -> None:
    house = open_house('every = "20 s"\non = "every-message"')
    await house.bring(letter(1))
    house.now += timedelta(seconds=19)
    again = House(house.store, house.config, is_new=False)
    again.now, again._uid = house.now, house._uid
    assert said(*await again.bring(letter(2))) == [HAD_ONE]
    again.now += timedelta(seconds=1)
    assert said(*await again.bring(letter(3))) == [GIVEN]


async def test_two_letters_in_one_batch_get_one_answer(open_house: Open) -> None:
    house = open_house()
    steps = said(*await house.bring(letter(1), letter(2)))
    assert sorted(steps) == sorted([GIVEN, HAD_ONE])
    assert len(house.outbox()) == 1


async def test_a_sender_is_known_by_author_and_by_return_path(open_house: Open) -> None:
    """A mailing that has another return path each time, and a person who has several names."""
    house = open_house()
    assert said(*await house.bring(letter(1, path="b1@mail.example"))) == ["to b1@mail.example → answered"]
    assert said(*await house.bring(letter(2, path="b2@mail.example"))) == [HAD_ONE]
    assert said(*await house.bring(letter(3, sender="carlos@customer.example", path="b1@mail.example"))) == [HAD_ONE]


async def test_what_continues_a_conversation_is_answered_only_where_every_message_is(open_house: Open) -> None:
    house = open_house()
    follow_up = letter(2, sender="dario@customer.example", more="In-Reply-To: <1@customer.example>\r\n")
    steps = said(*await house.bring(letter(1)), *await house.bring(follow_up))
    assert steps == [GIVEN, "it continues a conversation → no answer"]


async def test_each_message_is_answered_where_that_is_wanted(open_house: Open) -> None:
    house = open_house('on = "every-message"')
    follow_up = letter(2, sender="dario@customer.example", more="In-Reply-To: <1@customer.example>\r\n")
    steps = said(*await house.bring(letter(1)), *await house.bring(follow_up))
    assert steps == [GIVEN, "to dario@customer.example → answered"]


async def test_an_answer_to_our_answer_joins_the_conversation_and_has_none(open_house: Open) -> None:
    """Also from an address that nobody has seen before, and where every message is answered."""
    house = open_house('on = "every-message"')
    await house.bring(letter(1))
    (answer,) = house.answers()
    back = letter(2, sender="c2@customer.example", more=f"In-Reply-To: {answer['Message-ID']}\r\n")
    assert said(*await house.bring(back)) == ["it answers an automatic answer of ours → no answer"]
    (conversation,) = house.store.read(conversations.list_conversations, None, True).result(5)
    assert len(conversation["message_ids"]) == 2


async def test_our_own_answer_that_comes_back_is_not_answered(open_house: Open) -> None:
    house = open_house('on = "every-message"')
    await house.bring(letter(1))
    (answer,) = house.answers()
    more = f"X-Mail-Gateway-Answer: {answer['X-Mail-Gateway-Answer']}\r\n"
    assert said(*await house.bring(letter(2, sender="c2@customer.example", more=more))) == [
        "it is an automatic answer of ours → no answer"
    ]


async def test_a_breaker_ends_what_nothing_else_has_recognised(open_house: Open) -> None:
    house = open_house("most_per_hour = 3")
    letters = [letter(number, sender=f"c{number}@customer.example") for number in range(5)]
    steps = said(*await house.bring(*letters))
    assert steps.count("3 in an hour are the most → no answer") == 2
    assert len(house.outbox()) == 3
    assert house.alarms[-1] == 3
    # Those have no row in the ledger, so that they are answered when they write again
    house.now += timedelta(hours=1, seconds=1)
    left = steps.index("3 in an hour are the most → no answer")
    assert said(*await house.bring(letter(9, sender=f"c{left}@customer.example"))) == [
        f"to c{left}@customer.example → answered"
    ]
    assert house.alarms[-1] is None


async def test_the_breaker_counts_every_answer_to_one_sender(open_house: Open) -> None:
    house = open_house('most_per_hour = 3\nevery = "1 s"\non = "every-message"')
    for number in range(5):
        await house.bring(letter(number))
        house.now += timedelta(seconds=2)
    assert len(house.outbox()) == 3


@pytest.mark.parametrize(
    ("more", "answered"),
    [('when = "office:open"', True), ('when = "office:closed"', False), ('when = "always"', True)],
)
async def test_hours_decide(open_house: Open, more: str, answered: bool) -> None:
    house = open_house(more)
    assert said(*await house.bring(letter())) == [GIVEN if answered else "not at this hour → no answer"]


async def test_mail_older_than_max_age_or_the_first_watch_has_no_answer(open_house: Open) -> None:
    house = open_house('max_age = "60 days"')
    step = await house.bring(letter(1), internal_at=NOW - timedelta(days=30, seconds=2))
    assert said(*step) == ["it is older than the first watch → no answer"]
    assert said(*await house.bring(letter(2), internal_at=NOW - timedelta(days=29))) == [GIVEN]
    house.now += timedelta(days=31)
    step = await house.bring(letter(3, sender="d@customer.example"), internal_at=NOW - timedelta(days=29))
    assert said(*step) == ["it is older than max_age → no answer"]


async def test_an_answer_that_waits_longer_than_the_mail_may_be_old_is_dropped(open_house: Open) -> None:
    house = open_house('max_age = "2 hours"')
    await house.bring(letter(), internal_at=NOW - timedelta(hours=1))

    def drop_at(db: Any) -> int:
        return int(db.execute("SELECT drop_at FROM outbox").fetchone()[0])

    assert house.store.read(drop_at).result(5) == to_ms(NOW + timedelta(hours=1))


async def test_what_came_before_a_restore_is_taken_for_answered(open_house: Open) -> None:
    house = open_house()
    restored = [("backed_up_at", to_ms(NOW - timedelta(hours=2))), ("restored_at", to_ms(NOW - timedelta(minutes=1)))]
    for mark in restored:
        house.store.submit(marks.put, mark).result(5)
    step = await house.bring(letter(1), internal_at=NOW - timedelta(hours=1))
    assert said(*step) == ["it came before the store was restored → no answer"]
    assert said(*await house.bring(letter(2))) == [HAD_ONE]
    assert said(*await house.bring(letter(3, sender="d@customer.example"))) == ["to d@customer.example → answered"]


async def test_a_rule_and_the_quarantine_silence_it(open_house: Open) -> None:
    house = open_house()
    assert said(*await house.bring(letter(1, subject="hush now"))) == ["a rule says no → no answer"]
    assert said(*await house.bring(letter(2), role=Role.JUNK)) == ["it is in quarantine → no answer"]
    assert house.outbox() == []


async def test_a_template_that_cannot_be_filled_is_told_and_holds_nothing_up(open_house: Open) -> None:
    house = open_house("text = '{{ sender.name.nothing.there }}'")
    (step,) = await house.bring(letter())
    assert "it cannot be written" in step
    (conversation,) = house.store.read(conversations.list_conversations, None, True).result(5)
    assert conversation["queues"] == ["support"]
    assert house.outbox() == []


async def test_a_large_one_is_composed_in_a_worker_process(open_house: Open) -> None:
    house = open_house("text = '" + "Dear {{ sender.name }}, your mail is with us. " * 2_000 + "'")
    async with open_bridge() as bridge:
        workers = WorkerPool()

        async def compose(draft: Draft) -> Composed:
            composed.append(draft.token)
            return await bridge.call(partial(workers.run, compose_answer, draft, timeout=30))

        composed: list[str] = []
        replies = AutoReplies(house.store, now=lambda: house.now, compose=compose)
        house.intake = Intake(house.store, lambda: house.config, now_ms=lambda: to_ms(house.now), answers=replies)
        try:
            assert said(*await house.bring(letter())) == [GIVEN]
        finally:
            await bridge.call(workers.close)
    (answer,) = house.answers()
    assert answer["X-Mail-Gateway-Answer"] == composed[0]
    body = answer.get_body(("plain",))
    assert body is not None
    assert body.get_content().count("Dear Carla Costa,") == 2_000


async def test_no_word_of_it_where_none_is_configured(open_house: Open) -> None:
    house = open_house()
    touchpoint = house.config.touchpoints["support"]
    assert touchpoint.auto_reply is not None
    silent = touchpoint.model_copy(update={"auto_reply": touchpoint.auto_reply.model_copy(update={"active": False})})
    house.config = _with(house.config, silent)
    (step,) = await house.bring(letter())
    assert step.startswith("queues")


@pytest.mark.parametrize(
    ("smtp", "path"),
    [("smtps://smtp.example.com", ""), ("smtps://smtp.gmail.com", "support@example.com")],
    ids=["custom", "a-known-provider"],
)
async def test_the_return_path_is_null_where_the_provider_takes_that(open_house: Open, smtp: str, path: str) -> None:
    house = open_house(smtp=smtp)
    await house.bring(letter())

    def envelope(db: Any) -> tuple[Any, ...]:
        return tuple(
            db.execute("SELECT return_path, kind, answers IS NOT NULL, conversation > 0 FROM outbox").fetchone()
        )

    assert house.store.read(envelope).result(5) == (path, "auto-reply", 1, 1)


async def test_an_answer_that_bounces_reopens_nothing_and_tells_nobody(open_house: Open) -> None:
    house = open_house(smtp="smtps://smtp.gmail.com")
    await house.bring(letter())
    (answer,) = house.answers()
    (conversation,) = house.store.read(conversations.list_conversations, None, True).result(5)

    def close(db: Any, ids: Any) -> list[None]:
        db.execute("UPDATE conversation SET state = 'answered'")
        db.execute("UPDATE recipient SET state = 'delivered', settled_at = 1, next_attempt_at = NULL")
        return [None] * len(ids)

    house.store.submit(close, 0).result(5)
    report = (
        "Return-Path: <>\r\nFrom: MAILER-DAEMON@mx.example\r\nTo: support@example.com\r\nSubject: Undelivered\r\n"
        'MIME-Version: 1.0\r\nContent-Type: multipart/report; report-type=delivery-status; boundary="b"\r\n\r\n'
        "--b\r\nContent-Type: text/plain\r\n\r\nno\r\n--b\r\nContent-Type: message/delivery-status\r\n\r\n"
        f"Reporting-MTA: dns; mx.example\r\n\r\nFinal-Recipient: rfc822; {CARLA}\r\nAction: failed\r\n"
        "Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1 unknown\r\n\r\n--b\r\n"
        f"Content-Type: text/rfc822-headers\r\n\r\nMessage-ID: {answer['Message-ID']}\r\n\r\n--b--\r\n"
    ).encode()
    await house.bring(report)
    (after,) = house.store.read(conversations.list_conversations, None, True).result(5)
    assert (after["id"], after["state"], after["queues"]) == (conversation["id"], "answered", ["support"])
    (entry,) = house.outbox()
    assert CARLA in entry["recipients"][0]["bounced"]
    assert len(house.outbox()) == 1


def _with(config: Config, touchpoint: Any) -> Config:
    rules = config.rules.model_copy(
        update={
            "touchpoints": tuple(touchpoint if one.id == touchpoint.id else one for one in config.rules.touchpoints)
        }
    )
    return replace(config, rules=rules)
