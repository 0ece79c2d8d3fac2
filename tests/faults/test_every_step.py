"""kill -9 before and after every commit and every write to the wire, as they are counted; then each message is there
once.

All steps with `make soak`; without, a sample that is spread evenly over them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.dovecot import Dovecot, PlainDovecot
from tests.support.errand import Errand, EverythingErrand, MovingErrand
from tests.support.provider import Provider
from tests.support.steps import Deadly, Forge

SOAK = os.environ.get("SOAK") == "1"
TOGETHER = 6


@pytest.mark.timeout(3600 if SOAK else 240)
@pytest.mark.parametrize(
    ("kind", "server", "sample"),
    [
        pytest.param(EverythingErrand, Dovecot, 24, id="everything-dovecot"),
        pytest.param(MovingErrand, Dovecot, 8, id="moving-dovecot"),
        pytest.param(MovingErrand, PlainDovecot, 12, id="moving-without-move"),
        pytest.param(EverythingErrand, Cyrus, 12, id="everything-cyrus"),
        pytest.param(MovingErrand, Cyrus, 6, id="moving-cyrus"),
    ],
)
def test_killed_before_or_after_any_step_it_has_each_message_once(
    kind: type[Errand],
    server: type[Dovecot | Cyrus],
    sample: int,
    forge: Forge,
    authority: Authority,
    record_property: Callable[[str, object], None],
) -> None:
    provider = Provider(authority, server)
    try:
        untouched = kind(provider, forge, "untouched")
        steps = play_and_count(untouched)
        deaths = [Deadly(kind, number, when) for kind, number, _ in steps for when in ("before", "after")]
        chosen = deaths if SOAK else spread(deaths, sample)
        provider.add_mailboxes([f"run{number}" for number in range(len(chosen))])

        def play(numbered: tuple[int, Deadly]) -> tuple[int, str]:
            errand = kind(provider, forge, f"run{numbered[0]}", numbered[1])
            try:
                errand.play()
            except AssertionError as error:
                return errand.deaths, str(error)
            return errand.deaths, ""

        with ThreadPoolExecutor(TOGETHER) as pool:
            played = list(pool.map(play, enumerate(chosen)))
        wrong = [trouble for _, trouble in played if trouble]
        died = sum(deaths for deaths, _ in played)
        record_property(
            "counts",
            f"{dict(Counter(kind for kind, _, _ in steps))} steps in one run, {len(deaths)} deaths to die, "
            f"{len(chosen)} tried, {died} died, {len(wrong)} wrong",
        )
        assert not wrong, f"{len(wrong)} wrong\n" + "\n\n".join(wrong[:5])
        assert died >= len(chosen) * 3 // 4, "too few of the steps were reached again"
    finally:
        provider.close()


def test_a_daemon_that_forgets_what_it_had_not_finished_is_caught(forge: Forge, shared_provider: Provider) -> None:
    honest = MovingErrand(shared_provider, forge, "honest")
    stored = next(number for kind, number, label in play_and_count(honest) if "arrive" in label.split("+"))
    errand = MovingErrand(shared_provider, forge, "forgetful", Deadly("commit", stored, "after"))
    errand.daemon.forgetful, errand.patience = True, 3.0
    with pytest.raises(AssertionError, match="waited in vain"):
        errand.play()
    assert errand.deaths == 1


def play_and_count(errand: Errand) -> list[tuple[str, int, str]]:
    steps: list[tuple[str, int, str]] = []
    check = errand.check

    def check_and_count() -> None:
        check()
        steps.extend(errand.daemon.taken_steps())

    errand.check = check_and_count  # type: ignore[method-assign]  # to look before the daemon's files are gone
    errand.play()
    assert {kind for kind, _, _ in steps} == {"commit", "write"}
    return steps


def spread(deaths: Sequence[Deadly], count: int) -> list[Deadly]:
    """Return so many of them, evenly spread; where the first one lies changes with their number."""
    stride = max(1, len(deaths) / count)
    offset = len(deaths) % 7 / 7 * stride
    return [deaths[min(int(offset + number * stride), len(deaths) - 1)] for number in range(count)]
