"""What holds of every transaction, whatever was said: nobody is refused, sent to or sent to again by accident."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.model import Fate, Reply
from gateway.outbound.outcome import Decision, Transcript, Wait, decide, decide_greeting, decide_login
from gateway.outbound.refusals import LONGEST, SHORTEST, TABLES
from gateway.state.lifecycle import LaneEvent

TEXTS = (
    "ok",
    "no such user",
    "greylisted, try again in 5 minutes",
    "too many errors",
    "too many recipients",
    "Relay access denied",
    "SendAsDenied",
    "you have exceeded your daily limit",
    "Too many login attempts",
    "SmtpClientAuthentication is disabled",
    "message too large",
    "too many messages in this session",
    "host mx.example said: 550 5.7.60 SendAsDenied",
)
CODES = (
    200,
    220,
    250,
    251,
    299,
    334,
    354,
    399,
    421,
    432,
    450,
    451,
    452,
    454,
    499,
    500,
    501,
    503,
    530,
    535,
    550,
    552,
    554,
)
STATUSES = (
    "",
    "2.0.0",
    "4.2.0",
    "4.3.2",
    "4.5.3",
    "4.7.0",
    "5.1.1",
    "5.2.2",
    "5.3.4",
    "5.4.5",
    "5.7.1",
    "5.7.60",
    "5.7.139",
)

replies = st.builds(
    Reply,
    st.sampled_from(CODES) | st.integers(200, 599),
    st.sampled_from(STATUSES),
    st.sampled_from(TEXTS) | st.text(max_size=40),
)
maybe = st.none() | replies
tables = st.sampled_from(sorted(TABLES))


@st.composite
def transcripts(draw: st.DrawFn) -> Transcript:
    """What `relay.Link` can have written down: nothing behind the first thing that did not come."""
    recipients = draw(st.integers(1, 6))
    lost = draw(st.none() | st.just("the server closed the connection"))
    proven = draw(st.booleans())
    farewell = draw(maybe) if lost is not None else None
    nothing = (None,) * recipients
    mail = draw(replies) if lost is None else draw(maybe)
    if mail is None or mail.code // 100 != 2:
        return Transcript(nothing, mail, None, None, lost, False, proven, farewell)
    rcpt = tuple(draw(replies) if lost is None else draw(maybe) for _ in range(recipients))
    if not any(reply is not None and reply.code // 100 == 2 for reply in rcpt):
        return Transcript(rcpt, mail, None, None, lost, False, proven, farewell)
    data = draw(replies) if lost is None else draw(maybe)
    if data is None or data.code != 354:
        return Transcript(rcpt, mail, data, None, lost, False, proven, farewell)
    dotted = lost is None or draw(st.booleans())
    dot = draw(replies) if lost is None else draw(maybe)
    return Transcript(rcpt, mail, data, dot, lost, dotted, proven, farewell)


def is_good(reply: Reply | None) -> bool:
    return reply is not None and reply.code // 100 == 2


@given(transcripts(), tables, st.booleans())
@example(
    Transcript(
        (Reply(250, "", "ok"), Reply(550, "", "no")), Reply(250, "", ""), None, None, "x", farewell=Reply(421, "", "")
    ),
    "general",
    False,
)
def test_what_holds_of_every_transaction(t: Transcript, table: str, null: bool) -> None:
    decision = decide(t, table=table, null_return_path=null)
    assert len(decision.judged) == len(t.rcpt)
    for judged, rcpt in zip(decision.judged, t.rcpt, strict=True):
        outcome = judged.outcome
        assert (judged.wait is not None) == (outcome.fate is Fate.DEFERRED)
        if outcome.fate is Fate.ACCEPTED:
            assert is_good(rcpt)
            assert is_good(t.dot)
        if outcome.fate is Fate.REFUSED:
            assert outcome.reply is not None
            assert outcome.reply.code // 100 == 5
            assert outcome.reply in (t.mail, rcpt, t.data, t.dot)
        if outcome.fate is Fate.UNCERTAIN:
            assert is_good(rcpt)
            assert t.dotted
        if t.dotted and is_good(rcpt) and not (t.dot is not None and t.dot.code // 100 in (4, 5)):
            assert outcome.fate in (Fate.ACCEPTED, Fate.UNCERTAIN), "they may have it: never sent again by itself"
        if judged.asked is not None:
            assert judged.wait is Wait.CLOCK
            assert SHORTEST <= judged.asked <= LONGEST
    if t.lost is not None:
        assert not decision.is_reusable
    if decision.trouble is not None:
        assert not decision.worked


@given(transcripts(), tables)
def test_what_goes_again_at_once_comes_further_each_time(t: Transcript, table: str) -> None:
    """Or a server could keep us dialling for ever: somebody's fate has moved, the lane is shut, or the connection had
    worked before."""
    decision: Decision = decide(t, table=table)
    at_once = [judged.wait is Wait.NOW for judged in decision.judged]
    if any(at_once):
        assert t.proven or decision.trouble is not None or not all(at_once)


@given(transcripts(), tables)
def test_a_no_to_the_touchpoint_bounces_nothing(t: Transcript, table: str) -> None:
    decision = decide(t, table=table)
    if decision.trouble is not None and decision.trouble.event is LaneEvent.HOLD:
        said = decision.trouble.detail
        for judged in decision.judged:
            reply = judged.outcome.reply
            assert judged.outcome.fate is not Fate.REFUSED or (reply is not None and not said.endswith(str(reply)))


@given(replies, tables)
def test_before_mail_nothing_can_be_about_a_message(reply: Reply, table: str) -> None:
    assert decide_greeting(reply, table).event is LaneEvent.PAUSE
    trouble = decide_login(reply, table)
    assert trouble.event in (LaneEvent.PAUSE, LaneEvent.HOLD)
    if reply.code // 100 == 5 and trouble.event is LaneEvent.PAUSE:
        assert trouble.cause in ("throttled", "quota")
