"""The other scanner, as it is installed: it scores and it learns."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from gateway.config.rules_file import Spam
from gateway.errors import Unavailable
from gateway.inbound.scanner import Scanner
from gateway.inbound.scoring import Letter
from gateway.model import Score
from tests.support.lures import GTUBE, LURE, ORDER, lure
from tests.support.spamd import Spamd


@pytest.fixture
def spamd(request: pytest.FixtureRequest) -> Iterator[Spamd]:
    spamd = Spamd(**getattr(request, "param", {}))
    try:
        spamd.start()
        yield spamd
    finally:
        spamd.close()


def spam_of(spamd: Spamd, **keys: Any) -> Spam:
    patience = timedelta(seconds=10)  # its children start slowly on a busy machine
    return Spam.model_validate({"scanner": spamd.scanner, "scanner_timeout": patience, **keys})


async def ask(scanner: Scanner, spam: Spam, raw: bytes) -> Score:
    async def raw_of() -> bytes:
        return raw

    return await scanner.score(spam, Letter(len(raw), raw_of, return_path="customer@clients.example"))


async def test_it_scores_and_learns(spamd: Spamd) -> None:
    scanner, spam = Scanner(), spam_of(spamd)
    assert (await ask(scanner, spam, lure(GTUBE))).value > 100
    assert (await ask(scanner, spam, lure(ORDER))).value < 5
    before = await ask(scanner, spam, lure(LURE, 9))
    assert before.by == "spamd"
    for number in (1, 2, 3):
        assert await scanner.learn(spam, lure(LURE, number), is_spam=True) == ""
        assert await scanner.learn(spam, lure(ORDER, number), is_spam=False) == ""
    after = await ask(scanner, spam, lure(LURE, 9))
    assert "BAYES_99" in after.symbols
    assert after.value > before.value + 2
    assert await scanner.learn(spam, lure(LURE, 1), is_spam=True) == "", "it knows already"
    for number in (1, 2, 3):  # somebody has thought better of it
        assert await scanner.learn(spam, lure(LURE, number), is_spam=False) == ""
    assert "BAYES_99" not in (await ask(scanner, spam, lure(LURE, 9))).symbols


@pytest.mark.parametrize("spamd", [{"may_learn": False}], indirect=True)
async def test_one_that_may_not_learn_says_so(spamd: Spamd) -> None:
    with pytest.raises(Unavailable, match="--allow-tell"):
        await Scanner().learn(spam_of(spamd), lure(LURE), is_spam=True)


async def test_it_is_seen_to_be_there_and_to_be_gone(spamd: Spamd) -> None:
    scanner, spam = Scanner(), spam_of(spamd)
    await scanner.look(spam)
    spamd.stop()
    with pytest.raises(Unavailable, match="cannot be reached: Connection refused"):
        await ask(scanner, spam, lure(ORDER))
