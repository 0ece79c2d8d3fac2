"""Automatic answers without what keeps them from looping, to see that the judge notices. It changes the running code of
a forked daemon, so that the product needs no switch for it.
"""

from __future__ import annotations

from collections import Counter

from gateway.rules import answering
from gateway.state import answers


def answer_anything() -> None:
    """Nobody is known to have had an answer, no machine is known, not even ourselves, and there is no end."""
    answers._ledger = lambda db, places: iter(())
    answers._given_in_an_hour = lambda db, claims: Counter()
    answering._own_mail = lambda asked: ""
    answering._machine = lambda facts, verdict: ""
