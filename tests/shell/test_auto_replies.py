"""Automatic answers with the real door and the real store: people get one, in time, and nobody gets two."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import pytest

from gateway.config import Config, load
from gateway.inbound.intake import Intake
from gateway.model import Arrival, Location, Role, read_id, to_ms
from gateway.outbound.answers import AutoReplies
from gateway.state import conversations, folders, marks, outbox, raw
from gateway.state.folders import Folder, Opening
from gateway.state.store import Store, Tuning

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
html = '<p>Dear {{{{ sender.name | default("customer") }}}},</p><img src="file:logo.png"> <a href="tel:+351 21">{{{{ touchpoint.phone }}}}</a>'
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
name = "quiet"
if = {{ subject = "*hush*" }}
then = {{ auto_reply = false }}
"""


class House:
    """A store, its intake, and a clock that stands where the test puts it."""

    def __init__(self, store: Store, config: Config) -> None:
        self.store, self.config, self.now = store, config, NOW
        self.rung: list[str] = []
        self.alarms: list[int | None] = []
        replies = AutoReplies(
            store, on_given=self.rung.append, alarm=lambda _, most: self.alarms.append(most), now=lambda: self.now
        )
        self.intake = Intake(store, lambda: self.config, now_ms=lambda: to_ms(self.now), answers=replies)
        self._uid = 0
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

        import json

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
        f"To: support@example.com\r\nSubject: {subject}\r\nMessage-ID: <{number}@customer.example>\r\n{more}\r\nHello\r\n"
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
