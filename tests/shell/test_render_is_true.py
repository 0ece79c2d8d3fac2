"""What `render` shows is what the submission port stores: the same octets, from the same draft."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gateway.mime.scan import Mailbox
from gateway.model import read_id
from gateway.preview import letter, outgoing, sample
from tests.support.authority import Authority
from tests.support.preview import CORPUS
from tests.support.submission import TOUCHPOINTS, Rig

SIGNATURE = {"active": True, "text": "{{ agent.name }}\nLisboa, {{ customer.name | default('you') }}"}
HTML = "<b>{{ agent.name }}</b> <a href='tel:+351 21 000'>call</a> for {{ customer.address }}"


@pytest.mark.parametrize("from_name", ["touchpoint", "client", "{{ agent.name }} at {{ touchpoint.name }}"])
@pytest.mark.parametrize("html", ["", HTML])
@pytest.mark.parametrize(
    "asked", [None, "01-outlook-windows-reply", "09-thunderbird-reply-html", "12-mutt-reply-above"]
)
def test_what_is_shown_is_what_is_stored(
    tmp_path: Path, authority: Authority, from_name: str, html: str, asked: str | None
) -> None:
    support: dict[str, Any] = TOUCHPOINTS[0] | {"signature": SIGNATURE | {"html": html}, "from_name": from_name}
    rig = Rig(tmp_path, authority, touchpoints=[support])
    try:
        touchpoint, agent = rig.config.touchpoints["support"], rig.config.agents["ana@example.com"]
        at = datetime.now(UTC)
        author = Mailbox(agent.name, touchpoint.address)
        if asked is None:
            draft = sample.new(author, at=at, message_id="<preview@gateway.example>")
        else:
            original = letter.read((CORPUS / f"{asked}.eml").read_bytes())
            draft = sample.answer(author, original, at=at, message_id="<preview@gateway.example>")
        shown = outgoing.signed(draft, touchpoint, agent, touchpoint.address, at)
        assert shown.is_placed
        client = rig.login("ana@example.com")
        client.mail("support@example.com")
        client.rcpt(draft.customer.address)
        code, reply = client.data(draft.raw)
        assert code == 250
        number = read_id(reply.decode().split()[-1])
        assert number is not None
        assert rig.stored(number) == shown.raw
    finally:
        rig.close()
