"""Whatever a header holds, the question of an automatic answer is decided, and the answer can be written and read."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy

from hypothesis import given
from hypothesis import strategies as st

from gateway.config import Touchpoint
from gateway.errors import Malformed
from gateway.mime.scan import scan
from gateway.model import Findings, MessageClass, Verdict
from gateway.outbound.auto_reply import Draft, compose_answer
from gateway.rules.answering import TOKEN_FIELD, Addressee, Asked, decide_answer, token

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
KEY = b"of the tests"
TOKEN = token(KEY, 4711)
TOUCHPOINT = Touchpoint.model_validate(
    {
        "id": "support",
        "address": "support@example.com",
        "name": "Süpport, Inc.",
        "imap": "imaps://imap.example.com",
        "smtp": "smtps://smtp.example.com",
        "linked_queues": ["support"],
        "auto_reply": {
            "active": True,
            "subject": "Auto: {{ subject }}",
            "html": "<p>{{ sender.name }} {{ sender.address }} {{ subject }}</p>",
        },
    }
)
PERSON = {
    b"Return-Path": b"<carla@customer.example>",
    b"From": b"Carla <carla@customer.example>",
    b"To": b"support@example.com",
    b"Subject": b"Hello",
    b"Message-ID": b"<1@customer.example>",
}

values = st.one_of(
    st.binary(max_size=60).map(lambda value: value.replace(b"\n", b" ").replace(b"\r", b" ")),
    st.text(max_size=40).map(lambda text: text.replace("\n", " ").replace("\r", " ").encode("utf-8", "replace")),
    st.sampled_from(
        [b"<>", b"support@example.com", b"<c+x@y.example>", b"no", b"=?utf-8?Q?=0D=0ABcc:_a=40b?=", b"None"]
    ),
)
names = st.sampled_from(
    [
        *PERSON,
        b"Auto-Submitted",
        b"Precedence",
        b"List-Id",
        b"Reply-To",
        b"Sender",
        b"Cc",
        b"References",
        b"In-Reply-To",
        TOKEN_FIELD.encode(),
        b"X-Auto-Response-Suppress",
    ]
)


def asked(raw: bytes) -> Asked:
    return Asked(
        facts=scan(raw),
        verdict=Verdict(MessageClass.HUMAN, ("support",)),
        findings=Findings(),
        internal_at=AT,
        at=AT,
        own=TOUCHPOINT.addresses,
        ours=TOUCHPOINT.addresses,
        max_age=timedelta(days=2),
        is_wanted_now=True,
        key=KEY,
    )


def written(fields: dict[bytes, bytes]) -> bytes:
    return b"".join(b"%s: %s\r\n" % pair for pair in fields.items()) + b"\r\nbody\r\n"


@given(st.dictionaries(names, values, max_size=6))
def test_an_answer_is_one_message_to_the_return_path_that_no_gateway_answers(changes: dict[bytes, bytes]) -> None:
    question = asked(written({**PERSON, **changes}))
    decided = decide_answer(question)
    if isinstance(decided, str):
        assert decided
        return
    assert isinstance(decided, Addressee)
    assert decided.address == question.facts.return_path
    assert decided.keys
    reply = TOUCHPOINT.auto_reply
    assert reply is not None
    draft = Draft(TOUCHPOINT, reply, decided, question.facts, TOKEN, "gw.example", "support@example.com", AT, True)
    try:
        composed = compose_answer(draft)
    except Malformed:
        return
    assert composed.raw.isascii()
    assert max(map(len, composed.raw.split(b"\r\n"))) <= 998
    facts = scan(composed.raw)
    assert sorted(field.name for field in facts.fields if field.name in ("to", "from", "subject", "bcc", "cc")) == [
        "from",
        "subject",
        "to",
    ]
    assert [box.address for box in facts.to] == [decided.address]
    message = message_from_bytes(composed.raw, policy=policy.SMTP)
    assert not [part.defects for part in message.walk() if part.defects]
    # Come back with its own words as a person's mail: known by its token, at this gateway and by its header at others
    back = scan(b"Return-Path: <x@y.example>\r\n" + composed.raw)
    assert decide_answer(replace(question, facts=back)) == "it is an automatic answer of ours"
    assert decide_answer(replace(question, facts=back, key=b"another")) == "Auto-Submitted: auto-replied"
