"""A real Postfix as the provider, in its bad moods: what each of its noes does to the mail and to the lane."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from gateway.model import NO_WISH, Notify, Wish
from gateway.outbound.schedule import RetryPolicy
from tests.support.authority import Authority
from tests.support.despatch import BRISK, Despatch
from tests.support.greylist import Greylist
from tests.support.letters import message_id, repeated
from tests.support.postfix import Postfix
from tests.support.provider import CUSTOMER, Provider
from tests.support.waiting import wait_until

TEAM = "moods"


@pytest.fixture(scope="module")
def site(authority: Authority) -> Iterator[tuple[Provider, dict[str, Any]]]:
    provider = Provider(authority)
    try:
        yield provider, provider.touchpoint(TEAM, "outbound", pace={"connections": 2})
    finally:
        provider.close()


@pytest.fixture
def postfix(site: tuple[Provider, dict[str, Any]]) -> Postfix:
    return site[0].postfix


@pytest.fixture
def despatch(site: tuple[Provider, dict[str, Any]], tmp_path: Path) -> Iterator[Callable[..., Despatch]]:
    """Makes the outbound half, with Postfix as `settings` say; both are as before at the end."""
    provider, touchpoint = site
    made: list[Despatch] = []

    def make(policy: RetryPolicy = BRISK, pace: dict[str, int] | None = None, **settings: str) -> Despatch:
        if settings:
            provider.postfix.set(**settings)
        keys = touchpoint if pace is None else touchpoint | {"pace": pace}
        made.append(Despatch(tmp_path / "gateway.db", [keys], policy).__enter__())
        return made[-1]

    yield make
    for each in made:
        each.__exit__()
    provider.postfix.set()


def customer(number: int) -> str:
    return CUSTOMER.replace("@", f"+{number}@")


def handed_over_once(postfix: Postfix, despatch: Despatch, *ids: int) -> Counter[str]:
    """Return how many recipients each message reached; nobody got one twice."""
    wait_until(postfix.is_empty, "postfix has handed everything over", every=0.1, state=postfix.log_tail)
    names = {despatch.message(id)["message_id"] for id in ids}
    found = [(name, recipient) for name, recipient in postfix.handed_over() if name in names]
    assert repeated(f"{name} {recipient}" for name, recipient in found) == {}
    return Counter(name for name, _ in found)


def test_a_soft_bounce_refuses_nobody_and_a_real_one_says_so(
    postfix: Postfix, despatch: Callable[..., Despatch]
) -> None:
    rig = despatch(soft_bounce="yes")
    id = rig.accept(TEAM, CUSTOMER, "refused@clients.example")
    rig.wait_for({"deferred": 1, "delivered": 1})
    wait_until(lambda: rig.message(id)["recipients"][1]["attempts"] >= 2, "it is tried again", state=rig.show)
    assert "450 4.1.1" in rig.message(id)["recipients"][1]["reply"]
    assert rig.lane(TEAM).is_open
    assert rig.notices() == []

    postfix.set()
    rig.wait_for({"delivered": 1, "refused": 1})
    assert len(rig.notices()) == 1
    assert handed_over_once(postfix, rig, id).total() == 1


@pytest.mark.parametrize("soft_bounce", ["no", "yes"])
def test_a_session_that_ends_over_errors_is_worked_through(
    postfix: Postfix, despatch: Callable[..., Despatch], soft_bounce: str
) -> None:
    """smtpd_hard_error_limit: after three noes 421 and the end, in the middle of an envelope or between messages."""
    bad = [f"bad{number}@clients.example" for number in range(12)]
    table = " ".join(f"{{{address} = 550 5.1.1 no such person}}" for address in bad)
    rig = despatch(
        RetryPolicy(delays=(timedelta(minutes=1),), dial_delays=BRISK.dial_delays),
        smtpd_hard_error_limit="3",
        smtpd_soft_error_limit="2",
        smtpd_recipient_restrictions=f"check_recipient_access inline:{{ {table} }}, permit",
        soft_bounce=soft_bounce,
    )
    good = [customer(number) for number in range(12)]
    mixed = [address for pair in zip(good, bad, strict=True) for address in pair]
    ids = [rig.accept(TEAM, *mixed)]
    ids += [rig.accept(TEAM, customer(100 + number), bad[number]) for number in range(8)]
    fate = "refused" if soft_bounce == "no" else "deferred"
    rig.wait_for({"delivered": 20, fate: 20})
    assert rig.lane(TEAM).is_open
    assert handed_over_once(postfix, rig, *ids).total() == 20
    assert bool(rig.notices()) is (soft_bounce == "no")


@pytest.mark.parametrize("announced", [True, False])
def test_a_message_that_is_too_large_is_refused_alone(
    postfix: Postfix, despatch: Callable[..., Despatch], announced: bool
) -> None:
    settings = {"message_size_limit": "20000"}
    if not announced:
        settings["smtpd_discard_ehlo_keywords"] = "size"
    rig = despatch(**settings)
    small = [rig.accept(TEAM, CUSTOMER) for _ in range(3)]
    large = rig.accept(TEAM, CUSTOMER, body=b"a line of a large message\r\n" * 3_000)
    small += [rig.accept(TEAM, CUSTOMER) for _ in range(3)]
    rig.wait_for({"delivered": 6, "refused": 1})
    (recipient,) = rig.message(large)["recipients"]
    assert "5.3.4" in recipient["reply"]
    assert ("20000" in recipient["reply"]) is announced  # Postfix itself gives no numbers
    assert recipient["attempts"] == 1
    assert len(rig.notices()) == 1
    assert rig.lane(TEAM).is_open
    assert handed_over_once(postfix, rig, *small, large).total() == 6


def test_a_greylisted_recipient_comes_when_it_may_and_the_other_is_not_asked_twice(
    postfix: Postfix, despatch: Callable[..., Despatch]
) -> None:
    greylist = Greylist(2.0, "4.7.1 Greylisted, please come back in 3 seconds")
    try:
        rig = despatch(smtpd_recipient_restrictions=f"check_policy_service inet:127.0.0.1:{greylist.port}, permit")
        grey = "grey@clients.example"
        id = rig.accept(TEAM, CUSTOMER, grey)
        other = rig.accept(TEAM, CUSTOMER)
        rig.wait_for({"delivered": 3})
        first, second = greylist.tries[grey]  # asked once, and once more: no sooner than it wanted
        assert second - first >= 3
        recipients = {each["address"]: each["attempts"] for each in rig.message(id)["recipients"]}
        assert recipients == {CUSTOMER: 1, grey: 2}
        wait_until(
            lambda: [each for each in postfix.handed_over() if each[0] == rig.message(other)["message_id"]],
            "the customer has them",
        )
        copies = [each for each in postfix.handed_over() if each == (rig.message(id)["message_id"], CUSTOMER)]
        assert len(copies) == 1
        assert rig.lane(TEAM).is_open
    finally:
        greylist.close()


def test_a_message_for_many_is_split_where_postfix_has_enough(
    postfix: Postfix, despatch: Callable[..., Despatch]
) -> None:
    rig = despatch(smtpd_recipient_limit="5")
    ids = [rig.accept(TEAM, *(customer(number) for number in range(12))) for _ in range(3)]
    rig.wait_for({"delivered": 36})
    found = handed_over_once(postfix, rig, *ids)
    assert set(found.values()) == {12}
    assert rig.lane(TEAM).is_open


def test_a_pace_of_recipients_asks_for_no_more(postfix: Postfix, despatch: Callable[..., Despatch]) -> None:
    rig = despatch(pace={"connections": 1, "recipients": 5}, smtpd_recipient_limit="5")
    id = rig.accept(TEAM, *(customer(number) for number in range(12)))
    rig.wait_for({"delivered": 12})
    assert "too many recipients" not in postfix.log_tail(200).split(rig.message(id)["message_id"])[-1]
    assert sorted(each["attempts"] for each in rig.message(id)["recipients"]) == [1] * 12


def test_postfix_hears_what_the_writer_wants_to_hear(
    site: tuple[Provider, dict[str, Any]], despatch: Callable[..., Despatch]
) -> None:
    """NOTIFY, ORCPT, RET and ENVID as a real server reads them: it reports success, and to nobody who did not ask."""
    provider, touchpoint = site
    rig = despatch()
    wishes = (Wish(Notify.SUCCESS, "rfc822;first+2Bone@clients.example"), Wish(Notify(0)), NO_WISH)
    recipients = [customer(number) for number in range(3)]
    rig.accept(TEAM, *recipients, return_path=touchpoint["address"], wishes=wishes, envid="QQ314159", ret="hdrs")
    rig.wait_for({"delivered": 3})
    (report,) = wait_until(
        lambda: [raw for raw in provider.dovecot.messages(touchpoint["address"]) if b"QQ314159" in raw],
        "the report of success",
        state=provider.postfix.log_tail,
    )
    assert b"Original-Envelope-Id: QQ314159" in report
    assert b"Original-Recipient: rfc822;first+one@clients.example" in report
    assert report.count(b"Final-Recipient:") == 1
    assert b"text/rfc822-headers" in report


def test_a_throttle_pauses_the_lane_and_loses_nothing(postfix: Postfix, despatch: Callable[..., Despatch]) -> None:
    """450 "too much mail from" at MAIL: about us, so no message pays for it with its own clock."""
    rig = despatch(
        smtpd_client_message_rate_limit="5",
        anvil_rate_time_unit="2s",
        smtpd_client_event_limit_exceptions="",
        pace={"connections": 1},
    )
    ids = [rig.accept(TEAM, CUSTOMER) for _ in range(18)]
    rig.wait_for({"delivered": 18})
    waited = rig.store.read(lambda db: db.execute("SELECT max(waited) FROM recipient").fetchone()[0]).result(10)
    assert waited == 0
    assert handed_over_once(postfix, rig, *ids).total() == 18


def test_a_touchpoint_that_may_not_use_its_address_is_held_and_bounces_nothing(
    postfix: Postfix, despatch: Callable[..., Despatch]
) -> None:
    """Postfix says it at RCPT (smtpd_delay_reject), where any other 553 would be about the recipient."""
    rig = despatch(
        smtpd_sender_login_maps="inline:{ {nobody@support.example = nobody@support.example} }",
        smtpd_sender_restrictions="reject_sender_login_mismatch",
    )
    ids = [rig.accept(TEAM, CUSTOMER, return_path="nobody@support.example") for _ in range(5)]
    wait_until(lambda: not rig.lane(TEAM).is_open, "the lane is held", state=rig.show)
    assert rig.lane(TEAM).cause == "permission"
    wait_until(lambda: [alarm.key for alarm in rig.health.alarms()] == ["outbound"], "an alarm", state=rig.show)
    assert rig.notices() == []
    assert set(rig.states()) == {"held"}

    postfix.set()
    rig.wait_for({"delivered": 5})  # a probe finds out by itself
    assert handed_over_once(postfix, rig, *ids).total() == 5
    wait_until(lambda: not list(rig.health.alarms()), "no alarm")


def test_mail_flows_on_when_the_provider_comes_and_goes(
    site: tuple[Provider, dict[str, Any]],
    despatch: Callable[..., Despatch],
    record_property: Callable[[str, object], None],
) -> None:
    provider, postfix = site[0], site[0].postfix
    rig = despatch()
    ids: list[int] = []
    stops = 0
    for round_ in range(4):
        ids += [rig.accept(TEAM, CUSTOMER) for _ in range(60)]
        settled = rig.count().get("delivered", 0)
        wait_until(lambda: rig.count().get("delivered", 0) > settled, "some of it leaves", timeout=90, state=rig.show)  # noqa: B023
        if round_ < 3:
            postfix.stop()
            stops += 1
            ids += [rig.accept(TEAM, CUSTOMER) for _ in range(5)]
            postfix.start()
    wait_until(
        lambda: set(rig.count()) <= {"delivered", "uncertain"}, "all is settled", timeout=60, every=0.1, state=rig.show
    )
    fates = rig.count()
    record_property("counts", fates)
    assert fates.get("uncertain", 0) <= 2 * stops
    assert len(ids) == sum(fates.values()) == 255

    # The mailbox is the judge: a hard stop also takes lines from Postfix's log. Postfix itself may repeat over LMTP
    wait_until(postfix.is_empty, "postfix has handed everything over", every=0.1, state=postfix.log_tail)
    messages = {message["message_id"]: message["recipients"][0]["state"] for message in map(rig.message, ids)}
    taken = {(message_id(raw), taken_as(raw)) for raw in provider.dovecot.messages(CUSTOMER)}
    copies = [id for id, _ in taken if id in messages]
    assert repeated(copies) == {}
    assert {id for id, state in messages.items() if state == "delivered"} <= set(copies)


def taken_as(raw: bytes) -> str:
    """Return Postfix's own id of a message."""
    found = re.search(rb"\(Postfix\) with E?SMTPS?A? id (\w+)", raw)
    assert found, raw
    return found[1].decode()
