"""What a new touchpoint is taken to be when only its address and name are said."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.newcomer import compose

COLLEAGUE = {"address": "sales@example.com", "imap": "imaps://mail.example.com", "smtp": "smtps://mail.example.com"}


def table(address: str, *others: dict[str, Any], **said: Any) -> dict[str, Any]:
    found = compose({"address": address, "name": "N", **said}, {"touchpoint": list(others)})
    return {key: value for key, value in found.table.items() if key not in ("address", "name")}


def test_it_is_inactive_and_has_a_queue_and_servers() -> None:
    assert table("support@example.com") == {
        "active": False,
        "imap": "imaps://imap.example.com",
        "smtp": "smtps://smtp.example.com",
        "linked_queues": ["support"],
    }


def test_a_guess_is_told() -> None:
    remarks = compose({"address": "support@example.com", "name": "N"}, {}).remarks
    assert remarks == (
        "its servers are a guess, look at them before it is active: imaps://imap.example.com, smtps://smtp.example.com",
        'its mail goes into queue "support"; --queue names another',
    )


@pytest.mark.parametrize(
    ("address", "provider"), [("a@Gmail.com", "gmail"), ("a@hotmail.com", "microsoft"), ("a@me.com", "icloud")]
)
def test_a_known_domain_names_its_provider(address: str, provider: str) -> None:
    assert table(address) == {"active": False, "provider": provider, "linked_queues": ["a"]}


def test_a_touchpoint_of_the_same_domain_lends_its_servers() -> None:
    assert table("support@example.com", COLLEAGUE)["imap"] == "imaps://mail.example.com"
    assert table("a@gmail.com", {"address": "b@gmail.com", "provider": "gmail", "auth": "password"}) == {
        "active": False,
        "provider": "gmail",
        "auth": "password",
        "linked_queues": ["a"],
    }


def test_one_that_lacks_a_server_lends_none() -> None:
    lacking = {"address": "news@example.com", "direction": "outbound", "smtp": "smtps://out.example.com"}
    assert table("support@example.com", lacking, COLLEAGUE)["smtp"] == "smtps://mail.example.com"
    assert table("support@example.com", lacking, direction="outbound")["smtp"] == "smtps://out.example.com"


def test_what_is_said_counts() -> None:
    said = {"provider": "gmail", "linked_queues": ["x"], "active": True, "direction": "inbound", "password": "env:P"}
    assert table("support@example.com", COLLEAGUE, **said) == said


def test_one_that_only_sends_needs_no_queue() -> None:
    assert table("news@example.com", direction="outbound") == {
        "active": False,
        "direction": "outbound",
        "smtp": "smtps://smtp.example.com",
    }
