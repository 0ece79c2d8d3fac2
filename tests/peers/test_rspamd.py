"""The scanner as it is installed: it scores, it learns what people decide, and mail goes on without it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import pytest
import trio

from gateway.config.rules_file import Spam
from gateway.errors import Unavailable
from gateway.inbound.scanner import Scanner
from gateway.inbound.scoring import Letter
from gateway.model import Score
from tests.support.daemon import Daemon, Site
from tests.support.lures import GTUBE, LURE, ORDER, lure
from tests.support.provider import Provider
from tests.support.rspamd import Rspamd
from tests.support.waiting import wait_until


def spam_of(rspamd: Rspamd, **keys: Any) -> Spam:
    return Spam.model_validate({"scanner": rspamd.scanner, "learn_at": rspamd.teacher, **keys})


async def ask(scanner: Scanner, spam: Spam, raw: bytes, **keys: Any) -> Score:
    async def raw_of() -> bytes:
        return raw

    return await scanner.score(spam, Letter(len(raw), raw_of, **keys))


@pytest.fixture(scope="module")
def shared_rspamd() -> Iterator[Rspamd]:
    """For tests that never stop it, and teach it nothing."""
    rspamd = Rspamd()
    try:
        rspamd.start()
        yield rspamd
    finally:
        rspamd.close()


@pytest.fixture
def rspamd() -> Iterator[Rspamd]:
    rspamd = Rspamd()
    try:
        rspamd.start()
        yield rspamd
    finally:
        rspamd.close()


# --- asked directly --------------------------------------------------------------------------------------------------


async def test_it_tells_spam_from_a_question(shared_rspamd: Rspamd) -> None:
    scanner, spam = Scanner(), spam_of(shared_rspamd)
    bad = await ask(scanner, spam, lure(GTUBE))
    assert bad.by == "rspamd"
    assert bad.value > 10
    question = await ask(scanner, spam, lure(ORDER))
    assert question.value < 2


async def test_that_we_are_no_mail_server_costs_a_message_nothing(shared_rspamd: Rspamd) -> None:
    told = {"return_path": "customer@clients.example", "recipient": "support@support.example", "helo": "mx.example"}
    for ip in ("", "192.0.2.7", "2001:db8::7"):
        score = await ask(Scanner(), spam_of(shared_rspamd), lure(ORDER), ip=ip, **told)
        assert not {"HFILTER_HOSTNAME_UNKNOWN", "RDNS_NONE"} & set(score.symbols), ip
        assert score.value < 4, ip


async def test_what_a_stranger_has_written_into_the_envelope_does_no_harm(shared_rspamd: Rspamd) -> None:
    for path in ("a@b.example\r\nSettings: {}", "jürgen@bücher.example", "\x00", "a" * 5_000, "<>", "@@", "%00", ""):
        score = await ask(Scanner(), spam_of(shared_rspamd), lure(ORDER), return_path=path, helo=path, ip="192.0.2.7")
        assert score.value < 6, (path, score)


async def test_it_learns_both_ways_and_is_told_again_without_harm(rspamd: Rspamd) -> None:
    scanner, spam = Scanner(), spam_of(rspamd)
    before = await ask(scanner, spam, lure(LURE, 9))
    for number in (1, 2):
        assert await scanner.learn(spam, lure(LURE, number), is_spam=True) == ""
        assert await scanner.learn(spam, lure(ORDER, number), is_spam=False) == ""
    after = await ask(scanner, spam, lure(LURE, 9))
    assert "BAYES_SPAM" in after.symbols
    assert after.value > before.value + 1
    assert "BAYES_HAM" in (await ask(scanner, spam, lure(ORDER, 9))).symbols
    assert await scanner.learn(spam, lure(LURE, 1), is_spam=True) == "", "it knows already"
    assert "denied" in await scanner.learn(spam, lure(LURE, 3), is_spam=True), "that is clear to it"
    for number in (1, 2):  # somebody has thought better of it
        assert await scanner.learn(spam, lure(LURE, number), is_spam=False) == ""
    assert "BAYES_SPAM" not in (await ask(scanner, spam, lure(LURE, 9))).symbols


async def test_a_worker_that_only_scores_takes_no_lesson(shared_rspamd: Rspamd) -> None:
    spam = spam_of(shared_rspamd, learn_at=shared_rspamd.scanner)
    with pytest.raises(Unavailable, match="invalid command"):
        await Scanner().learn(spam, lure(LURE), is_spam=True)


async def test_a_controller_that_wants_a_password_gets_it(monkeypatch: pytest.MonkeyPatch) -> None:
    rspamd = Rspamd(password="opensesame")
    try:
        rspamd.start()
        with pytest.raises(Unavailable, match="answers 401"):
            await Scanner().learn(spam_of(rspamd), lure(LURE), is_spam=True)
        monkeypatch.setenv("RSPAMD_PASSWORD", "opensesame")
        spam = spam_of(rspamd, learn_password="env:RSPAMD_PASSWORD")
        assert await Scanner().learn(spam, lure(LURE), is_spam=True) == ""
    finally:
        rspamd.close()


async def test_one_that_is_frozen_or_dead_holds_nobody_up_and_is_asked_again_when_it_is_back(rspamd: Rspamd) -> None:
    scanner, spam = Scanner(), spam_of(rspamd, scanner_timeout="500 ms")
    assert (await ask(scanner, spam, lure(GTUBE))).value > 10
    rspamd.freeze()
    began = time.monotonic()
    with pytest.raises(Unavailable, match=r"not answered within 0\.5 s"):
        await ask(scanner, spam, lure(GTUBE))
    assert time.monotonic() - began < 5
    rspamd.thaw()
    assert (await ask(scanner, spam, lure(GTUBE))).value > 10
    rspamd.kill()
    with pytest.raises(Unavailable, match=r"cannot be reached: Connection refused|has broken"):
        await ask(scanner, spam, lure(GTUBE))
    rspamd.start()
    with trio.fail_after(30):
        while True:
            try:
                assert (await ask(scanner, spam, lure(GTUBE))).value > 10
                break
            except Unavailable:
                await trio.sleep(0.05)


# --- with the daemon -------------------------------------------------------------------------------------------------


def site_of(provider: Provider, rspamd: Rspamd, **spam: Any) -> Site:
    site = Site([provider.touchpoint("support", "inbound")])
    site.add_agent("ana@gateway.example", "password", ["support"])
    site.more["spam"] = {"scanner": rspamd.scanner, "learn_at": rspamd.teacher, **spam}
    return site


def deliver(provider: Provider, *letters: bytes) -> None:
    provider.dovecot.deliver("support@support.example", *letters)


def quarantined(daemon: Daemon) -> list[dict[str, Any]]:
    return list(daemon.ask("quarantine.list"))


def test_spam_goes_to_quarantine_and_judgements_are_taught(
    provider: Provider, rspamd: Rspamd, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(site_of(provider, rspamd))
    daemon.start()
    daemon.wait_connected("support")
    deliver(provider, lure(GTUBE, 1, "Spam"), lure(ORDER, 2, "Order"), lure(GTUBE, 3, "Wanted"))
    wait_until(lambda: len(daemon.conversations()) == 3, "all three are placed", state=daemon.log_tail)
    by_subject = {one["subject"]: one for one in quarantined(daemon)}
    assert set(by_subject) == {"Spam 1", "Wanted 3"}
    assert by_subject["Spam 1"]["cause"].startswith("scanner: rspamd says ")
    states = {one["subject"]: one["state"] for one in daemon.conversations()}
    assert states["Order 2"] == "open"

    daemon.ask("quarantine.confirm", id=by_subject["Spam 1"]["id"])
    daemon.ask("quarantine.release", id=by_subject["Wanted 3"]["id"])
    wait_until(lambda: len(daemon.events("taught")) == 2, "both lessons are given", state=daemon.log_tail)
    kinds = {event["queue_id"]: event["kind"] for event in daemon.events("taught")}
    assert kinds == {by_subject["Spam 1"]["id"]: "spam", by_subject["Wanted 3"]["id"]: "ham"}
    heard = rspamd.log.read_text()
    assert "learned message as spam: Spam.1@clients.example" in heard
    assert "learned message as ham: Wanted.3@clients.example" in heard


def test_a_lesson_waits_for_a_scanner_that_is_away_and_outlives_the_daemon(
    provider: Provider, rspamd: Rspamd, make_daemon: Callable[..., Daemon]
) -> None:
    daemon = make_daemon(site_of(provider, rspamd))
    daemon.start()
    daemon.wait_connected("support")
    deliver(provider, lure(GTUBE, 1, "Spam"))
    spam = wait_until(lambda: quarantined(daemon), "it is in quarantine", state=daemon.log_tail)
    rspamd.stop()
    daemon.ask("quarantine.confirm", id=spam[0]["id"])
    wait_until(lambda: daemon.events("lessons-put-off"), "the lesson is put off", state=daemon.log_tail)
    daemon.kill()
    rspamd.start()
    with daemon.database() as database:
        assert database.execute("SELECT spam, tries FROM lesson").fetchall() == [(1, 1)]
        database.execute("UPDATE lesson SET next_at = 0")  # the minute is over
    database.close()
    daemon.start()
    wait_until(lambda: daemon.events("taught"), "the lesson is given", state=daemon.log_tail)
    daemon.stop()
    with daemon.database() as database:
        assert database.execute("SELECT count(*) FROM lesson").fetchone() == (0,)
    database.close()


@pytest.mark.timeout(180)
def test_mail_goes_on_while_the_scanner_freezes_dies_and_comes_back(
    provider: Provider, rspamd: Rspamd, make_daemon: Callable[..., Daemon]
) -> None:
    patience = timedelta(seconds=1)
    daemon = make_daemon(site_of(provider, rspamd, scanner_timeout="1 s"))
    daemon.start()
    daemon.wait_connected("support")
    waits: list[float] = []

    def bring(subject: str, number: int = 1) -> None:
        """Deliver some, one after the other, and note how long each took to be placed."""
        for _ in range(number):
            began = time.monotonic()
            deliver(provider, lure(GTUBE, len(waits), subject))
            wait_until(lambda: len(daemon.conversations()) > len(waits), f"{subject} is placed", state=daemon.log_tail)
            waits.append(time.monotonic() - began)

    def in_queues(subject: str) -> int:
        return sum(one["state"] == "open" and one["subject"].startswith(subject) for one in daemon.conversations())

    bring("Before", 3)
    assert in_queues("Before") == 0, "they are scored"
    rspamd.freeze()
    bring("Frozen", 6)
    assert in_queues("Frozen") == 6, "without a score they go where they would"
    assert any(alarm["id"] == "scanner" for alarm in daemon.status()["alarms"])
    shown = daemon.ask("queue.show", id=daemon.conversations()[0]["id"])
    assert "not asked for a while" in str(shown["messages"][0]["trail"])
    rspamd.thaw()
    rspamd.kill()
    bring("Dead", 6)
    assert in_queues("Dead") == 6
    # Beside its own time limit a message may wait for the machine, not for the scanner
    assert max(waits) < patience.total_seconds() + 5, waits
    rspamd.start()

    def is_scored_again() -> bool:
        bring("After")
        return any(one["subject"].startswith("After") for one in quarantined(daemon))

    wait_until(is_scored_again, "it is asked again", timeout=90, every=1.0, state=daemon.log_tail)
    assert not any(alarm["id"] == "scanner" for alarm in daemon.status()["alarms"])
    assert daemon.events("scanner-away")
    assert daemon.events("scanner-back")
