"""docs/relay.md tells what is so."""

from __future__ import annotations

from pathlib import Path

from gateway.config import Touchpoint
from gateway.config.providers import PROFILES
from gateway.outbound.dispatcher import action_for
from gateway.outbound.refusals import Cause
from gateway.state.lanes import Lane
from gateway.state.lifecycle import PERSON, LaneState

MANUAL = (Path(__file__).parents[2] / "docs" / "relay.md").read_text()
ROWS = [[cell.strip() for cell in line.split("|")[1:-1]] for line in MANUAL.split("\n") if line.startswith("| ")]


def test_the_table_of_providers_is_that_of_the_profiles() -> None:
    told = {name: cells for name, *cells in ROWS if name in PROFILES}
    assert told == {
        name: [
            str(profile.recipients or ""),
            f"{profile.size // 1_000_000} MB" if profile.size else "",
            profile.refusals,
        ]
        for name, profile in PROFILES.items()
    }


def test_every_cause_is_told_and_has_an_action() -> None:
    told = {name.strip("`") for name, *cells in ROWS if cells and cells[0] in ("held", "paused")}
    assert told == {*Cause, PERSON}
    touchpoint = Touchpoint.model_validate({"address": "support@example.com", "name": "Support"})
    for cause in told:
        assert action_for(Lane("support@example.com", LaneState.HELD, cause), touchpoint)
