"""A touchpoint is added, copied, removed or switched, and the rest of the file does not notice."""

from __future__ import annotations

import difflib
import tomllib

import pytest

from gateway.config import amendments
from gateway.config.amendments import CannotAmend

FILE = """\
# What happens to mail at Example.

# The big one, ask Ana before you touch it.
[[touchpoint]]  # since 2019
id = "support"
address = "Support@example.com"
name = "Example Support"   # as on the letterhead
active   =   false   # until Monday
login = "ana@example.com"
imap_login = "ana@example.com"
# the vault's name for it
password = "file:secrets/support"
aliases = [
  "help@example.com",  # the old one
]
linked_queues = ["support"]
dkim.selector = "s1"
dkim.domain = "example.com"
dkim.private_key = "file:dkim.pem"
# per_day = 9000

# --- Billing --------------------------------------------------

[[touchpoint]]
address = "billing@example.com"
name = '''Example Billing'''
linked_queues = ["billing"]

# Ben drew the logo
[touchpoint.signature]
active = true
html = \"\"\"
[[touchpoint]]
active = true
\"\"\"

# --- Agents ---------------------------------------------------

[[agent]]
login = "ana@example.com"
name = "Ana Lima"

  [[touchpoint]]
  address = "news@example.com"
  name = "News"
  linked_queues = []

[spam]
blocklist = []
"""


def changed(before: str, after: str) -> list[str]:
    """Return the lines that differ, `+` or `-` in front; empty ones as they are."""
    lines = difflib.ndiff(before.splitlines(), after.splitlines())
    return [line[:1] + line[2:] for line in lines if line[0] in "+-"]


# --- active ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["support", "SUPPORT@example.com", "help@example.com"])
def test_a_touchpoint_is_known_by_id_address_and_alias(name: str) -> None:
    after = amendments.set_active(FILE, [name], True)
    assert changed(FILE, after) == [
        "-active   =   false   # until Monday",
        "+active   =   true   # until Monday",
    ]


def test_a_key_that_is_not_there_comes_to_stand_below_the_name() -> None:
    after = amendments.set_active(FILE, ["billing@example.com"], True)
    assert changed(FILE, after) == ["+active = true"]
    assert "name = '''Example Billing'''\nactive = true\nlinked_queues" in after


def test_a_key_keeps_the_margin_of_its_table() -> None:
    after = amendments.set_active(FILE, ["news@example.com"], True)
    assert '  name = "News"\n  active = true\n  linked_queues' in after


def test_several_are_switched_at_once() -> None:
    after = amendments.set_active(FILE, ["support", "news@example.com", "support"], True)
    assert [table.get("active") for table in tomllib.loads(after)["touchpoint"]] == [True, None, True]


def test_what_is_so_already_changes_nothing() -> None:
    assert amendments.set_active(FILE, ["support", "billing@example.com"], False) == FILE


def test_an_unknown_name_is_told_with_what_may_be_meant() -> None:
    with pytest.raises(CannotAmend, match='unknown touchpoint "suport"; did you mean "support"') as caught:
        amendments.set_active(FILE, ["billing@example.com", "suport"], True)
    assert caught.value.exit_code == 2


# --- add -------------------------------------------------------------------------------------------------------------


def test_a_new_touchpoint_stands_behind_the_last_one() -> None:
    after = amendments.add(FILE, {"address": "a@b.example", "name": 'A "B"', "linked_queues": ["a", "b"]})
    assert changed(FILE, after) == [
        *("+[[touchpoint]]", '+address = "a@b.example"', '+name = "A \\"B\\""', '+linked_queues = ["a", "b"]', "+"),
    ]
    assert '  linked_queues = []\n\n[[touchpoint]]\naddress = "a@b.example"' in after


@pytest.mark.parametrize(
    "text", ["", "# nothing yet\n", "# nothing yet", "# nothing yet\n\n", "[spam]\nblocklist = []\n"]
)
def test_the_first_touchpoint_stands_at_the_end(text: str) -> None:
    after = amendments.add(text, {"address": "a@b.example"})
    assert after.startswith(text)
    assert after.endswith('[[touchpoint]]\naddress = "a@b.example"\n')
    assert "\n\n\n" not in after


# --- duplicate -------------------------------------------------------------------------------------------------------


def test_a_copy_is_inactive_and_without_login_secrets_and_aliases() -> None:
    after = amendments.duplicate(FILE, "support", {"address": "second@example.com"})
    assert tomllib.loads(after)["touchpoint"][1] == {
        "address": "second@example.com",
        "name": "Example Support",
        "active": False,
        "linked_queues": ["support"],
    }
    assert [line for line in changed(FILE, after) if line.startswith("-")] == []
    block = after[after.rindex("[[touchpoint]]", 0, after.index("second@example.com")) : after.index("# --- Billing")]
    assert block == (
        '[[touchpoint]]\naddress = "second@example.com"\nname = "Example Support"   # as on the letterhead\n'
        'active   =   false   # until Monday\nlinked_queues = ["support"]\n# per_day = 9000\n\n'
    )


def test_a_copy_of_an_active_one_is_inactive() -> None:
    active = amendments.set_active(FILE, ["support"], True)
    copied = tomllib.loads(amendments.duplicate(active, "support", {"address": "second@example.com"}))
    assert [table["active"] for table in copied["touchpoint"][:2]] == [True, False]


def test_a_copy_has_the_tables_of_the_old_one_and_what_it_is_given() -> None:
    after = amendments.duplicate(FILE, "billing@example.com", {"id": "two", "address": "b@example.com", "name": "Two"})
    data = tomllib.loads(FILE)["touchpoint"]
    assert tomllib.loads(after)["touchpoint"] == [
        *data[:2],
        data[1] | {"id": "two", "address": "b@example.com", "name": "Two", "active": False},
        data[2],
    ]
    assert after.index("b@example.com") < after.index("# --- Agents")


# --- remove ----------------------------------------------------------------------------------------------------------


def test_a_touchpoint_goes_with_its_tables_and_the_comment_above_it() -> None:
    after = amendments.remove(FILE, "support")
    assert after == "# What happens to mail at Example.\n\n" + FILE[FILE.index("# --- Billing") :]


def test_banners_and_what_belongs_to_others_stay() -> None:
    after = amendments.remove(FILE, "billing@example.com")
    begin, end = FILE.index('[[touchpoint]]\naddress = "billing'), FILE.index("# --- Agents")
    assert after == FILE[:begin] + FILE[end:]


def test_a_banner_directly_above_stays_and_what_is_between_goes() -> None:
    text = '# head\n\n# --- Touchpoints ---\n# Ana\'s\n[[touchpoint]]\naddress = "a@b.example"\n\n[spam]\n'
    assert amendments.remove(text, "a@b.example") == "# head\n\n# --- Touchpoints ---\n\n[spam]\n"


def test_a_comment_between_two_belongs_to_the_second() -> None:
    text = '[[touchpoint]]\naddress = "a@b.example"\n# the second\n[[touchpoint]]\naddress = "c@b.example"\n'
    assert amendments.remove(text, "a@b.example") == '# the second\n[[touchpoint]]\naddress = "c@b.example"\n'
    assert amendments.remove(text, "c@b.example") == '[[touchpoint]]\naddress = "a@b.example"\n'


def test_tables_of_other_kinds_in_between_stay() -> None:
    text = '[[touchpoint]]\naddress = "a@b.example"\n\n[spam]\n\n# its\n[touchpoint.pace]\nconnections = 1\n\n[hours]\n'
    assert amendments.remove(text, "a@b.example") == "[spam]\n\n[hours]\n"
    copied = amendments.duplicate(text, "a@b.example", {"address": "c@b.example"})
    assert [table.get("pace") for table in tomllib.loads(copied)["touchpoint"]] == [{"connections": 1}] * 2


def test_the_last_touchpoint_can_go() -> None:
    assert amendments.remove('# heading\n\n[[touchpoint]]\naddress = "a@b.example"\n', "a@b.example") == "# heading\n"


def test_the_heading_of_the_file_is_no_comment_of_the_first_touchpoint() -> None:
    text = '#:schema schema/rules.schema.json\n# heading\n[[touchpoint]]\naddress = "a@b.example"\n'
    assert amendments.remove(text, "a@b.example") == "#:schema schema/rules.schema.json\n# heading\n"


# --- how it is written -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "amend",
    [
        lambda text: amendments.set_active(text, ["support", "billing@example.com"], True),
        lambda text: amendments.add(text, {"address": "a@b.example"}),
        lambda text: amendments.duplicate(text, "support", {"id": "x", "address": "a@b.example"}),
        lambda text: amendments.duplicate(text, "billing@example.com", {"address": "a@b.example"}),
        lambda text: amendments.remove(text, "support"),
        lambda text: amendments.remove(text, "news@example.com"),
    ],
    ids=["activate", "add", "duplicate", "duplicate tables", "remove", "remove the last"],
)
def test_lines_end_as_the_file_has_them(amend) -> None:
    assert amend(FILE.replace("\n", "\r\n")) == amend(FILE).replace("\n", "\r\n")


def test_a_list_of_inline_tables_is_left_to_a_person() -> None:
    text = 'touchpoint = [{ address = "a@b.example", name = "A" }]\n'
    for amend in (
        lambda: amendments.set_active(text, ["a@b.example"], True),
        lambda: amendments.remove(text, "a@b.example"),
        lambda: amendments.add(text, {"address": "c@b.example"}),
    ):
        with pytest.raises(CannotAmend, match=r"\[\[touchpoint\]\] tables"):
            amend()


@pytest.mark.parametrize("text", ["= nothing", "touchpoint = 3", '[touchpoint]\naddress = "a@b.example"'])
def test_what_is_no_rules_file_is_refused(text: str) -> None:
    with pytest.raises(CannotAmend, match="mail-gateway check"):
        amendments.set_active(text, ["a@b.example"], True)
