"""Machines that answer machines: in any company, each touchpoint gives at most one automatic answer to anybody in a
period, and when people are silent, everybody is.

24 periods of 20 seconds with `make soak`; a few short ones without.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.daemon import Daemon
from tests.support.loop_rig import GAMMA, GATEWAYS, LATER, REFUSED, LoopRig
from tests.support.loops import judge, most_within
from tests.support.steps import Forge, SteppedDaemon
from tests.support.waiting import wait_until

EVERY, PERIODS = (20, 24) if os.environ.get("SOAK") == "1" else (4, 3)

MakeRig = Callable[[Callable[..., Daemon], int], LoopRig]


@pytest.fixture
def make_rig(authority: Authority, tmp_path: Path) -> Iterator[MakeRig]:
    made: list[LoopRig] = []

    def make(make_daemon: Callable[..., Daemon], every: int) -> LoopRig:
        made.append(LoopRig(authority, make_daemon, every, tmp_path))
        made[-1].start()
        return made[-1]

    try:
        yield make
    finally:
        for rig in made:
            rig.close()


@pytest.mark.timeout(EVERY * PERIODS + 180)
def test_in_any_company_there_is_one_automatic_answer_for_each_pair_and_period(
    make_rig: MakeRig, make_daemon: Callable[..., Daemon], record_property: Callable[[str, object], None]
) -> None:
    rig = make_rig(make_daemon, EVERY)
    rig.play(PERIODS)
    verdict = judge(rig.evidence())
    record_property("counts", verdict.table(EVERY, {"messages that passed": rig.passed}))
    assert not verdict.wrong, "\n".join(verdict.wrong)
    refused = rig.answered(REFUSED)
    assert set(refused) == {"alpha", "beta"}
    assert all(most_within(times, EVERY - 1) == 1 for times in refused.values())
    for name, members in GATEWAYS.items():
        told = rig.told(name)
        lost = {whom: sum(rig.wrote[member.address, whom] for member in members) for whom in (REFUSED, LATER)}
        assert told["Not"] + told["Undelivered"] == sum(lost.values()), (
            "an agent hears of each letter, and of nothing else"
        )
    alarms = {alarm["id"] for daemon in rig.daemons.values() for alarm in daemon.status()["alarms"]}
    assert f"{GAMMA.id}/auto-reply" in alarms, "that it has fallen silent is said"
    assert not rig.troubles()


def test_a_gateway_that_answers_anything_is_caught(make_rig: MakeRig, forge: Forge) -> None:
    def make_daemon(site: object) -> Daemon:
        return SteppedDaemon(forge, site, changes=["tests.peers.loop_sabotage:answer_anything"])  # type: ignore[arg-type]

    rig = make_rig(make_daemon, 4)
    rig.write()
    wanted = {"twice in a period", "answered a machine", "answered its own echo", "too many"}

    def complaints() -> set[str]:
        return {trouble.partition(":")[0] for trouble in judge(rig.evidence()).wrong}

    wait_until(lambda: wanted <= complaints(), "the judge has found all of it", every=1, state=complaints)
