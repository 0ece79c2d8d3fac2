"""What agents submit leaves exactly once, or is in sight with its reason: through every mood of the providers, through
their outages, through kill -9 at every state and at random moments. The provider's ledger is the judge.

5,000 submissions, 100 kills and every step with `make soak`; a few hundred and a sample of the steps without.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import product

import pytest

from tests.support.provider import Provider
from tests.support.rig import RETRY_STEP, Kind, OutboundErrand, OutboundStorm, Rig, Size
from tests.support.sentbox import Habits
from tests.support.steps import Deadly, Forge

SOAK = os.environ.get("SOAK") == "1"
SIZE = (
    Size(5_000, kills=100, seed=7, lull=2.0, patience=120, threads=4)
    if SOAK
    else Size(300, kills=10, seed=7, lull=0.6, patience=40, threads=3)
)
TOGETHER = 8 if SOAK else 4
ATTEMPTS = 3  # to die at a step that not every run has

RATES = {
    "connect": 0.01,
    "greeting": 0.02,
    "ehlo": 0.02,
    "auth": 0.02,
    "mail": 0.01,
    "rcpt": 0.01,
    "data": 0.01,
    "content": 0.01,
    "dot": 0.05,
}
BARE = ("8BITMIME", "SIZE 50000000", "AUTH PLAIN LOGIN")
STORMY = (
    Kind("plain", RATES),
    Kind("narrow", RATES, most=2, extensions=BARE, pace={"connections": 3, "per_connection": 7}),
    Kind("keeping", RATES, Habits(), direction="both"),
    Kind("late", RATES, Habits(late=0.3, own=0.2)),
    Kind("filing", RATES, session=True, direction="both"),
)
CALM = (Kind("plain"), Kind("narrow", most=2, extensions=BARE))


@pytest.fixture
def make_rig(forge: Forge) -> Iterator[Callable[..., Rig]]:
    made: list[Rig] = []

    def make(kinds: Sequence[Kind], mailboxes: Provider | None, seed: int, changes: Sequence[str] = ()) -> Rig:
        made.append(Rig(forge, kinds, mailboxes, seed, changes))
        return made[-1]

    try:
        yield make
    finally:
        for rig in made:
            rig.close()


@pytest.mark.timeout(3600 if SOAK else 180)
def test_in_a_storm_each_accepted_submission_leaves_once(
    make_rig: Callable[..., Rig], shared_provider: Provider, record_property: Callable[[str, object], None]
) -> None:
    rig = make_rig(STORMY, shared_provider, SIZE.seed)
    began = time.monotonic()
    OutboundStorm(rig, SIZE).rage()
    raged = time.monotonic()
    backlog = rig.waiting()
    rig.settle(SIZE.patience, by_evidence=True)
    rig.settle_by_hand(SIZE.patience)
    rig.wait_for_copies(SIZE.patience)
    found = rig.count()
    story = {
        "moods": sum(rig.moods().values()),
        "of these at": dict(Counter(name.partition(":")[0] for name in rig.moods().elements())),
        "mishaps": dict(rig.did),
        "settled by evidence": dict(rig.evidence()),
        "settled by a person": dict(rig.settled),
        "copies filed by us": sum(len(place.copies()) for place in rig.places if place.is_filed_by_us),
        "waiting at the providers' return": len(backlog),
        "seconds to the last delivery": f"{rig.latest:.1f}",
        "seconds": f"{raged - began:.0f} of storm, {time.monotonic() - began:.0f} in all",
    }
    record_property("counts", found.table(story))
    assert not found.wrong, "\n".join(found.wrong[:40])
    unexplained = [
        one for one in backlog if one[3]["state"] in ("deferred", "held") and not (one[2] or one[3]["reply"])
    ]
    assert not unexplained, "in the middle of it: deferred or held without a reason"
    assert rig.did["kill"] == SIZE.kills
    assert rig.latest <= 2 * RETRY_STEP + len(backlog) / 100 + 2, "two steps, and what the backlog takes by itself"
    assert found.counts["cut behind the dot"] > 0
    assert found.counts["submitted again"] > 0


@pytest.mark.timeout(3600 if SOAK else 180)
@pytest.mark.parametrize(
    ("keeps_copies", "sample"),
    [pytest.param(False, 24, id="settled-by-hand"), pytest.param(True, 12, id="settled-by-evidence")],
)
def test_killed_before_or_after_any_step_each_submission_leaves_once(
    keeps_copies: bool,
    sample: int,
    make_rig: Callable[..., Rig],
    shared_provider: Provider,
    record_property: Callable[[str, object], None],
) -> None:
    def errand(id: str, deadly: Deadly | None = None) -> OutboundErrand:
        habits = Habits() if keeps_copies else None
        kinds = (
            Kind(f"{id}plain", habits=habits, direction="both" if keeps_copies else "outbound"),
            Kind(f"{id}narrow", habits=habits, most=2, extensions=BARE),
        )
        return OutboundErrand(make_rig(kinds, shared_provider, 1), deadly)

    def play(numbered: tuple[int, Deadly]) -> tuple[int, str]:
        """How many steps a run takes depends on the moment: when one ends before its step, the next dies at the last
        one of that kind which it had."""
        number, deadly = numbered
        for attempt in range(ATTEMPTS):
            one = errand(f"run{number}x{attempt}", deadly)
            try:
                found = one.play()
                trouble = "\n".join(found.wrong)
                if keeps_copies and one.rig.settled:
                    trouble += f"\na person had to settle {dict(one.rig.settled)}"
            except AssertionError as error:
                trouble = str(error)
            finally:
                one.rig.close()
            if trouble or one.deaths:
                break
            deadly = replace(deadly, number=sum(kind == deadly.kind for kind, _, _ in one.steps))
        return one.deaths, trouble and f"{deadly}: {trouble}"

    untouched = errand("untouched")
    assert not untouched.play().wrong
    steps = untouched.steps
    assert {"commit", "smtp", "reply"} <= {kind for kind, _, _ in steps}
    deaths = [Deadly(kind, number, when) for kind, number, _ in steps for when in ("before", "after")]
    chosen = deaths if SOAK else spread(deaths, sample)
    if keeps_copies:
        runs = product(range(len(chosen)), range(ATTEMPTS), ("plain", "narrow"))
        shared_provider.add_mailboxes(f"run{number}x{attempt}{place}" for number, attempt, place in runs)
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


def spread(deaths: Sequence[Deadly], count: int) -> list[Deadly]:
    """Return so many of them, evenly spread; where the first one lies changes with their number."""
    stride = max(1, len(deaths) / count)
    offset = len(deaths) % 7 / 7 * stride
    return [deaths[min(int(offset + number * stride), len(deaths) - 1)] for number in range(count)]


SABOTAGE = "tests.faults.outbound_sabotage"


@pytest.mark.parametrize(
    ("sabotage", "dies", "complaints"),
    [
        pytest.param(f"{SABOTAGE}:begin_in_memory_only", "after the dot", {"doubled"}, id="sending-not-committed"),
        pytest.param(f"{SABOTAGE}:send_again_after_a_crash", "after the dot", {"doubled"}, id="crash-taken-for-unsent"),
        pytest.param(f"{SABOTAGE}:send_again_after_a_cut", "", {"doubled"}, id="cut-taken-for-unsent"),
        pytest.param(f"{SABOTAGE}:believe_in_the_answer", "", {"lost"}, id="recorded-before-the-answer"),
        pytest.param(f"{SABOTAGE}:recognise_nothing", "", {"doubled", "accepted twice"}, id="taken-again"),
        pytest.param(f"{SABOTAGE}:keep_bounces_to_ourselves", "", {"bounces"}, id="no-bounces"),
        pytest.param(f"{SABOTAGE}:promise_more_than_is_kept", "", {"lost", "forgotten"}, id="promised-and-not-kept"),
    ],
)
def test_a_daemon_that_breaks_a_promise_is_caught(
    sabotage: str, dies: str, complaints: set[str], make_rig: Callable[..., Rig]
) -> None:
    errand = OutboundErrand(make_rig(CALM, None, 1, [sabotage]), the_step(make_rig, sabotage, dies) if dies else None)
    assert set(complaints) <= {trouble.partition(":")[0] for trouble in errand.play().wrong}


@pytest.mark.parametrize(
    ("sabotage", "complaint"),
    [
        pytest.param(f"{SABOTAGE}:believe_in_any_copy", "lost", id="any-copy-counts"),
        pytest.param(f"{SABOTAGE}:believe_in_the_first_look", "doubled", id="one-look-counts"),
    ],
)
def test_a_daemon_that_is_content_with_less_evidence_is_caught(
    sabotage: str, complaint: str, make_rig: Callable[..., Rig], shared_provider: Provider
) -> None:
    id = sabotage.rpartition("_")[2]
    habits = Habits(late=1.0, at_least=1.5, at_most=2.0)
    kinds = (Kind(f"{id}1", habits=habits), Kind(f"{id}2", habits=habits, most=2, extensions=BARE))
    found = OutboundErrand(make_rig(kinds, shared_provider, 1, [sabotage])).play()
    assert complaint in {trouble.partition(":")[0] for trouble in found.wrong}


def the_step(make_rig: Callable[..., Rig], sabotage: str, dies: str) -> Deadly:
    """Return the first step of a run that is called so."""
    when, _, label = dies.partition(" ")
    untouched = OutboundErrand(make_rig(CALM, None, 1, [sabotage]))
    untouched.play()
    kind, number, _ = next(step for step in untouched.steps if label in step[2].split("+"))
    return Deadly(kind, number, when)
