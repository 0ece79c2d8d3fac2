"""What a reload says and what it leaves alone."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.config import diff, inbound_settings, outbound_settings
from tests.unit.config.writing import AGENT, PNG, SUPPORT, TOUCHPOINT, load

OTHER = TOUCHPOINT.replace("support", "sales").replace("imap.", "imap2.")


def lines(directory: Path, old: str, new: str, old_gateway: str = "", new_gateway: str = "") -> list[str]:
    before = load(directory, old, old_gateway)
    return diff(before, load(directory, new, new_gateway)).lines()


def test_the_same_files_change_nothing(tmp_path: Path) -> None:
    changes = diff(load(tmp_path, SUPPORT), load(tmp_path, "# other words\n" + SUPPORT))
    assert not changes
    assert changes.lines() == []


CHANGES = {
    "key": (SUPPORT, SUPPORT.replace('"Example Support"', '"Support"'), "touchpoint support: name changed"),
    "keys": (
        SUPPORT,
        TOUCHPOINT + 'aliases = ["a@b.example"]\npace = { per_day = 5 }\n' + AGENT,
        "touchpoint support: aliases, pace.per_day changed",
    ),
    "added": (SUPPORT, SUPPORT + OTHER, "touchpoint sales: added"),
    "removed": (SUPPORT + OTHER, SUPPORT, "touchpoint sales: removed"),
    "signature": (
        TOUCHPOINT + '[touchpoint.signature]\ntext = "a"\n' + AGENT,
        TOUCHPOINT + '[touchpoint.signature]\ntext = "b"\nactive = true\n' + AGENT,
        "touchpoint support: signature.text, signature.active changed",
    ),
    "new signature": (
        SUPPORT,
        TOUCHPOINT + '[touchpoint.signature]\ntext = "b"\n' + AGENT,
        "touchpoint support: signature changed",
    ),
    "agent": (SUPPORT, SUPPORT + 'role = "admin"', "agent ana@example.com: role changed"),
    "rule": (SUPPORT, SUPPORT + '[[rule]]\nname = "a"\nstop = true', "rule a: added"),
    "condition": (
        SUPPORT + '[[rule]]\nname = "a"\nstop = true\nif.subject = "x"',
        SUPPORT + '[[rule]]\nname = "a"\nstop = true\nif.subject = "y"',
        "rule a: if.subject changed",
    ),
    "order": (
        SUPPORT + '[[rule]]\nname = "a"\nthen.tags = "x"\n[[rule]]\nname = "b"\nthen.tags = "y"',
        SUPPORT + '[[rule]]\nname = "b"\nthen.tags = "y"\n[[rule]]\nname = "a"\nthen.tags = "x"',
        "rules: in another order",
    ),
    "hours": (
        SUPPORT + '[hours.office]\nopen = ["mon 09:00-10:00"]',
        SUPPORT + '[hours.office]\nopen = ["tue 09:00-10:00"]',
        "hours office: open changed",
    ),
    "template": (SUPPORT, SUPPORT + '[[template]]\nname = "t"', "template t: added"),
    "spam": (SUPPORT, SUPPORT + '[spam]\nblocklist = ["a@b.example"]', "spam: blocklist changed"),
}


@pytest.mark.parametrize(("old", "new", "line"), CHANGES.values(), ids=CHANGES.keys())
def test_a_change_is_one_line_that_names_it(tmp_path: Path, old: str, new: str, line: str) -> None:
    assert lines(tmp_path, old, new) == [line]


def test_a_new_picture_of_the_same_name_is_a_change(tmp_path: Path) -> None:
    (tmp_path / "logo.png").write_bytes(PNG)
    rules = f"{TOUCHPOINT}[touchpoint.signature]\nhtml = '<img src=\"file:logo.png\">'\n{AGENT}"
    before = load(tmp_path, rules)
    (tmp_path / "logo.png").write_bytes(PNG + b"x")
    assert diff(before, load(tmp_path, rules)).lines() == ["touchpoint support: signature.images changed"]


def test_what_needs_a_restart_says_so(tmp_path: Path) -> None:
    changes = diff(
        load(tmp_path, SUPPORT, 'state_dir = "a"\n[outbound]\ngive_up_after = "1 day"'),
        load(tmp_path, SUPPORT, 'state_dir = "b"\n[outbound]\ngive_up_after = "2 days"'),
    )
    assert changes.restart == ("state_dir",)
    assert changes.lines() == [
        "gateway.toml: outbound.give_up_after changed",
        "gateway.toml: state_dir changed: needs a restart, the old value stays until then",
    ]


UNTOUCHED = [
    'name = "B"',
    'sent_copy = "provider"',
    'aliases = ["a@b.example"]',
    'linked_queues = ["b"]',
    "[touchpoint.signature]\ntext = 'x'",
]
INBOUND = [
    'imap = "imaps://other"',
    'imap_login = "x"',
    'folders = ["A"]',
    'history = "all"',
    'after_fetch = "seen"',
    'watch = { poll = "1 min" }',
    "watch = { idle = false }",
    'watch = { junk = "" }',
]
OUTBOUND = ['smtp = "smtps://other"', 'smtp_login = "x"', "pace = { per_day = 3 }"]
BOTH = ['password = "env:A"', 'login = "x"', 'auth = "oauth2"']


@pytest.mark.parametrize(
    ("keys", "inbound", "outbound"),
    [
        *((keys, False, False) for keys in UNTOUCHED),
        *((keys, True, False) for keys in INBOUND),
        *((keys, False, True) for keys in OUTBOUND),
        *((keys, True, True) for keys in BOTH),
    ],
)
def test_a_session_ends_only_when_its_own_settings_change(
    tmp_path: Path, keys: str, inbound: bool, outbound: bool
) -> None:
    key = keys.split(" ")[0]
    kept = "\n".join(line for line in TOUCHPOINT.split("\n") if not line.startswith(f"{key} "))
    before = load(tmp_path, SUPPORT).touchpoints["support"]
    after = load(tmp_path, f"{kept}\n{keys}\n{AGENT}").touchpoints["support"]
    assert (inbound_settings(before) != inbound_settings(after)) is inbound
    assert (outbound_settings(before) != outbound_settings(after)) is outbound
    assert hash(inbound_settings(after)) == hash(inbound_settings(after))
