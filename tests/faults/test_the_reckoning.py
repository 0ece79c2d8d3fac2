"""The judge of the outbound rig is tested before it is believed: it finds each thing that may go wrong, and nothing
where nothing did.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.support.moody import Attempt, Entry, digest
from tests.support.reckoning import Evidence, reckon
from tests.support.writers import Submission, compose

BOB, EVE = "bob.1.0@clients.example", "eve.1.1@clients.example"
NOBODY = "nobody.1.0@clients.example"
ID = "1r7hq2x0"
FIRST: Attempt = (ID, 1, BOB)


def submission(*recipients: str, **changes: Any) -> Submission:
    sender = "plain@support.example"
    raw = compose(1, sender, recipients, "Hello")
    told = {"ids": [ID], "sent": 1, **changes}
    return Submission(1, "ana@gateway.example", "plain", sender, recipients, raw, **told)


def row(*states: tuple[str, str], id: str = ID, cause: str | None = None, reply: str | None = "250") -> dict[str, Any]:
    recipients = [{"address": address, "state": state, "reply": reply} for address, state in states]
    return {"id": id, "message_id": "<1@writers.example>", "cause": cause, "recipients": recipients}


def entry(of: Submission, recipient: str = BOB, attempt: int = 1, id: str = ID, **changes: Any) -> Entry:
    return replace(Entry(id, attempt, recipient, of.message_id, digest(of.raw), 0.0), **changes)


def evidence(of: Submission, *rows: Mapping[str, Any], taken: tuple[Entry, ...] = (), **more: Any) -> Evidence:
    begun = Counter((one.queue_id, one.attempt, one.recipient) for one in taken)
    known: dict[str, Any] = {name: set() for name in ("cut", "killed", "doubted", "doubtful")}
    return Evidence([of], rows, taken, **{"begun": begun, "unread": [], "bounced": {}, **known, **more})


def complaints(of: Evidence) -> set[str]:
    return {trouble.partition(":")[0] for trouble in reckon(of).wrong}


ONE, TWO = submission(BOB), submission(BOB, EVE)
UNANSWERED = submission(BOB, ids=[])
REFUSED = submission(NOBODY)


@pytest.mark.parametrize(
    "fine",
    [
        pytest.param(evidence(ONE, row((BOB, "delivered")), taken=(entry(ONE),)), id="delivered"),
        pytest.param(evidence(ONE, row((BOB, "deferred"), reply="450 later")), id="deferred"),
        pytest.param(evidence(ONE, row((BOB, "held"), cause="login: 535 no")), id="held"),
        pytest.param(evidence(ONE, row((BOB, "uncertain")), cut={FIRST}, doubted={FIRST}), id="cut-and-uncertain"),
        pytest.param(
            evidence(ONE, row((BOB, "uncertain")), taken=(entry(ONE),), killed={FIRST}, doubtful={FIRST}),
            id="taken-and-uncertain",
        ),
        pytest.param(
            evidence(ONE, row((BOB, "uncertain")), unread=[(BOB,)], doubted={FIRST}), id="cut-before-it-was-read"
        ),
        pytest.param(
            evidence(REFUSED, row((NOBODY, "refused")), bounced={(ID, NOBODY): 1}), id="refused-with-its-bounce"
        ),
        pytest.param(evidence(UNANSWERED), id="never-accepted"),
        pytest.param(evidence(UNANSWERED, row((BOB, "delivered")), taken=(entry(ONE),)), id="accepted-unheard"),
        pytest.param(evidence(ONE, row((BOB, "cancelled")), cancelled={ID}), id="cancelled"),
    ],
)
def test_the_count_finds_nothing_where_all_is_well(fine: Evidence) -> None:
    assert reckon(fine).wrong == []


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        pytest.param(evidence(ONE, row((BOB, "delivered"))), "lost", id="delivered-to-nobody"),
        pytest.param(evidence(ONE), "lost", id="promised-and-not-there"),
        pytest.param(evidence(ONE), "forgotten", id="promised-under-an-id-that-is-not-there"),
        pytest.param(
            evidence(TWO, row((BOB, "delivered"), (EVE, "delivered")), taken=(entry(TWO),)), "lost", id="one-of-two"
        ),
        pytest.param(
            evidence(ONE, row((BOB, "delivered")), taken=(entry(ONE), entry(ONE, attempt=2))), "doubled", id="twice"
        ),
        pytest.param(
            evidence(ONE, row((BOB, "deferred")), taken=(entry(ONE),)), "doubled", id="taken-and-to-be-sent-again"
        ),
        pytest.param(
            evidence(ONE, row((BOB, "delivered")), row((BOB, "queued"), id="1r7hq2x1"), taken=(entry(ONE),)),
            "accepted twice",
            id="submitted-again-and-taken-for-new",
        ),
        pytest.param(
            evidence(ONE, row((BOB, "delivered")), taken=(entry(ONE, body="of another"),)), "mangled", id="mangled"
        ),
        pytest.param(evidence(ONE, row((BOB, "held"))), "held without a cause", id="held"),
        pytest.param(evidence(ONE, row((BOB, "deferred"), reply=None)), "deferred without a reason", id="deferred"),
        pytest.param(evidence(ONE, row((BOB, "uncertain")), doubted={FIRST}), "uncertain without need", id="uncertain"),
        pytest.param(
            evidence(ONE, row((BOB, "uncertain"), reply=None), cut={FIRST}),
            "uncertain without a reason",
            id="uncertain-and-no-reason",
        ),
        pytest.param(evidence(REFUSED, row((NOBODY, "refused"))), "bounces", id="refused-in-silence"),
        pytest.param(
            evidence(REFUSED, row((NOBODY, "refused")), bounced={(ID, NOBODY): 2}), "bounces", id="two-bounces"
        ),
        pytest.param(
            evidence(ONE, row((BOB, "refused")), bounced={(ID, BOB): 1}), "bounced without a cause", id="bounced"
        ),
        pytest.param(
            evidence(ONE, row((BOB, "delivered")), taken=(entry(ONE),), bounced={(ID, BOB): 1}),
            "bounces",
            id="delivered-and-bounced",
        ),
        pytest.param(evidence(ONE, row((BOB, "cancelled"))), "cancelled by nobody", id="cancelled-by-nobody"),
        pytest.param(
            evidence(ONE, row((BOB, "cancelled")), taken=(entry(ONE),), cancelled={ID}),
            "cancelled and sent",
            id="cancelled-and-sent",
        ),
        pytest.param(evidence(ONE, row((BOB, "expired"))), "in an odd state", id="given-up"),
        pytest.param(
            evidence(ONE, row((BOB, "delivered")), taken=(entry(ONE),), begun=Counter({FIRST: 2})),
            "attempts of one name",
            id="one-number-for-two-attempts",
        ),
        pytest.param(
            evidence(ONE, row((BOB, "delivered")), taken=(entry(ONE), entry(ONE, EVE))), "from nowhere", id="a-stranger"
        ),
        pytest.param(
            evidence(submission(BOB, replies=["554 5.6.0 no"])), "refused at the door", id="refused-at-the-door"
        ),
    ],
)
def test_the_count_notices(wrong: Evidence, complaint: str) -> None:
    assert complaint in complaints(wrong)
