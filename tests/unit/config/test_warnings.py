"""What is allowed and probably not meant, and what the admin should know."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.errors import Severity
from tests.unit.config.writing import AGENT, SUPPORT, TOUCHPOINT, check, load, marked_line, said

SECOND = TOUCHPOINT.replace('"support"\na', '"second"\na').replace("support@example.com", "second@example.com")

AUTO = '[touchpoint.auto_reply]  # here\nactive = true\nsubject = "Auto: {{{{ subject }}}}"\ntext = "Hi {}"\n{}\n'

WARNINGS = {
    "what is not sent": (
        TOUCHPOINT + "[touchpoint.signature]\nhtml = '<p onclick=\"x\">Ana</p>'  # here\n" + AGENT,
        'signature of touchpoint "support": left out of what is sent: onclick of <p>: nothing may act in a mail',
    ),
    "queue that nobody sees": (
        TOUCHPOINT.replace('["support"]', '["support", "billing"]  # here') + AGENT,
        'mail can reach queue "billing", but no agent sees it; add it to an agent\'s ring_groups',
    ),
    "queue that nobody sees, misspelt": (
        SUPPORT + '[[rule]]\nname = "a"\nthen = { queue = "suport" }  # here',
        'mail can reach queue "suport", but no agent sees it; did you mean "support"?',
    ),
    "only an inactive agent sees it": (
        TOUCHPOINT.replace('["support"]', '["support"]  # here') + AGENT + "active = false",
        'mail can reach queue "support", but no agent sees it',
    ),
    "ring group that nothing feeds": (
        TOUCHPOINT + AGENT.replace('["support"]', '[\n"support",\n"sales",  # here\n]'),
        'nothing feeds ring group "sales"; link it to a touchpoint or name it in a rule',
    ),
    "nobody may write": (
        TOUCHPOINT.replace("[[touchpoint]]", "[[touchpoint]]  # here") + AGENT + "touchpoints = []",
        'nobody may write as touchpoint "support"',
    ),
    "only receives": (
        TOUCHPOINT + 'direction = "inbound"\n' + AGENT + 'touchpoints = ["support"]  # here',
        'touchpoint "support" only receives, so nobody can write as it',
    ),
    "preview role": (
        TOUCHPOINT + 'preview_roles = ["agent", "supervisor"]  # here\n' + AGENT,
        'no agent has role "supervisor"; there is "agent"',
    ),
    "mail to a scanner in the clear": (
        SUPPORT + '[spam]\nscanner = "rspamd+http://scan.example:11333"  # here',
        "all mail goes to scan.example in the clear; use rspamd+https, or a scanner on this machine",
    ),
    "lessons in the clear": (
        SUPPORT + '[spam]\nscanner = "spamd://[::1]:783"\nlearn_at = "spamd://192.0.2.7:783"  # here',
        "all mail goes to 192.0.2.7 in the clear",
    ),
    "password for nobody": (
        SUPPORT + '[spam]\nscanner = "spamd://127.0.0.1:783"\nlearn_password = "env:A"  # here',
        "only rspamd's controller asks for a password",
    ),
    "secret of the scanner": (
        SUPPORT + '[spam]\nscanner = "rspamd+http://localhost:1"\nlearn_password = "file:/none"  # here',
        "/none does not exist",
    ),
    "score that nobody gives": (
        SUPPORT + '[[rule]]\nname = "a"\n[rule.if]\nany = [{ class = "list" }, { spam_score_over = 4 }]  # here\n'
        '[rule.then]\ntags = ["x"]',
        'spam_score_over is never answered: there is no scanner; name one, [spam] scanner = "…"',
    ),
    "rule behind the last": (
        SUPPORT + '[[rule]]\nname = "a"\nstop = true\n[[rule]]  # here\nname = "b"\nstop = true',
        'rule "b" is never looked at: the rule of line 14 stops all mail',
    ),
    "rule behind the last of its touchpoint": (
        SUPPORT + '[[rule]]\nname = "a"\ntouchpoints = ["support"]\nstop = true\n'
        '[[rule]]  # here\nname = "b"\ntouchpoints = ["support@example.com"]\nstop = true',
        'rule "b" is never looked at: the rule of line 14 stops all mail of its touchpoints',
    ),
    "rule behind the last of each": (
        SUPPORT + SECOND + '[[rule]]\nname = "a"\ntouchpoints = ["support"]\nstop = true\n'
        '[[rule]]\nname = "b"\ntouchpoints = ["second"]\nstop = true\n[[rule]]  # here\nname = "c"\nstop = true',
        'rule "c" is never looked at: the rules of lines 22 and 26 stop all mail of its touchpoints',
    ),
    "rule for one that only sends": (
        TOUCHPOINT + 'direction = "outbound"\n' + AGENT + '[[rule]]  # here\nname = "a"\ntouchpoints = ["support"]\n'
        "stop = true",
        'rule "a" is never looked at: its touchpoint only sends',
    ),
    "fed only by a rule that is never looked at": (
        TOUCHPOINT + AGENT.replace('["support"]', '[\n"support",\n"sales",  # here\n]') + '[[rule]]\nname = "a"\n'
        'stop = true\n[[rule]]\nname = "b"\nthen.queue = "sales"',
        'nothing feeds ring group "sales"',
    ),
    "nobody has role admin": (
        SUPPORT + '[[rule]]\nname = "a"\nthen = { queue = "unrouted" }  # here',
        'mail can reach queue "unrouted", which role "admin" sees, and no active agent has that role',
    ),
    "answers to nobody": (
        TOUCHPOINT
        + 'direction = "outbound"\n[touchpoint.auto_reply]  # here\nactive = true\nsubject = "A"\ntext = "B"\n'
        + AGENT,
        'the automatic reply of touchpoint "support" is active, but the touchpoint only sends',
    ),
    "answers that cannot leave": (
        TOUCHPOINT
        + 'direction = "inbound"\n[touchpoint.auto_reply]  # here\nactive = true\nsubject = "A"\ntext = "B"\n'
        + AGENT,
        'the automatic reply of touchpoint "support" is active, but the touchpoint only receives',
    ),
    "seen by those who may not answer": (
        TOUCHPOINT.replace('["support"]', '["support"]  # here')
        + AGENT
        + "touchpoints = []\n"
        + AGENT.replace("ana@", "ben@").replace('["support"]', "[]")
        + 'touchpoints = ["support"]',
        'nobody who sees the queues of touchpoint "support" may answer as it: add it to the touchpoints of "ana@',
    ),
    "automatic reply of one that only receives": (
        TOUCHPOINT.replace('["support"]', '["support"]\ndirection = "inbound"') + AUTO.format("", "") + AGENT,
        'touchpoint "support" is inbound only, so its automatic reply is never sent; set direction = "both"',
    ),
    "automatic reply after each message": (
        TOUCHPOINT + AUTO.format("", 'every = "20 s"  # here').replace("  # here\n", "\n", 1) + AGENT,
        'who writes to touchpoint "support" may get an automatic reply after each 20 s; a day or more is usual',
    ),
    "automatic reply that asks for no hours": (
        TOUCHPOINT + AUTO.format("{{ open }}", "") + AGENT,
        'the automatic reply of touchpoint "support" asks "open" and no hours are meant (there are none)',
    ),
    "rule without effect": (
        SUPPORT + '[[rule]]  # here\nname = "a"\nif = { subject = "*" }',
        'rule "a" does nothing; give it then = { … } or stop = true',
    ),
    "same name": (
        SUPPORT + '[[rule]]\nname = "a"\nif.subject = "x"\nstop = true\n[[rule]]\nname = "a"  # here\nstop = true',
        'rule "a" is there twice, the first on line 15',
    ),
    "never open": (SUPPORT + "[hours.office]  # here\n", 'hours "office" are never open'),
    "no password": (
        TOUCHPOINT.replace("[[touchpoint]]", "[[touchpoint]]  # here") + "active = true\n" + AGENT,
        'touchpoint "support" is active and has no password; add password = "file:…"',
    ),
    "missing secret": (
        TOUCHPOINT + 'password = "file:nowhere"  # here\n' + AGENT,
        "{directory}/nowhere does not exist",
    ),
}


@pytest.mark.parametrize(("rules", "message"), WARNINGS.values(), ids=WARNINGS.keys())
def test_what_looks_mistaken_is_a_warning_at_its_line(tmp_path: Path, rules: str, message: str) -> None:
    problems = check(tmp_path, rules)
    assert said(problems) == []
    wanted = f"rules.toml:{marked_line(rules)}: {message.replace('{directory}', str(tmp_path))}"
    warnings = said(problems, Severity.WARNING)
    assert any(each.startswith(wanted) for each in warnings), warnings


def test_a_sound_configuration_gives_no_warning(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o600)
    rules = f"""{TOUCHPOINT}active = true
password = "file:secret"
{AGENT}
[[rule]]
name = "invoices"
if = {{ subject = "*invoice*" }}
then = {{ queue = "linked", priority = "high" }}
[[rule]]
name = "the rest"
stop = true
"""
    assert said(load(tmp_path, rules).problems, Severity.WARNING) == []


def test_a_secret_that_everybody_can_read_is_a_warning(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (tmp_path / "secret").chmod(0o644)
    problems = check(tmp_path, TOUCHPOINT + 'password = "file:secret"\n' + AGENT)
    assert said(problems, Severity.WARNING) == [
        f"rules.toml:9: everybody on this machine can read {tmp_path / 'secret'};"
        f" run: chmod o-rwx {tmp_path / 'secret'}"
    ]


def test_a_delay_nobody_hears_of_is_a_warning(tmp_path: Path) -> None:
    gateway = '[outbound]\ngive_up_after = "1 hour"'
    assert any(
        "nobody will be told of a delay" in each for each in said(check(tmp_path, "", gateway), Severity.WARNING)
    )


def test_a_rule_is_looked_at_while_one_of_its_touchpoints_has_mail_for_it(tmp_path: Path) -> None:
    first = '[[rule]]\nname = "a"\ntouchpoints = ["support"]\nstop = true\n'
    rules = SUPPORT + SECOND + first + '[[rule]]\nname = "b"\nthen = { queue = "linked" }\n'
    assert not [each for each in said(check(tmp_path, rules), Severity.WARNING) if "never looked at" in each]


def test_an_admin_sees_what_nothing_has_placed(tmp_path: Path) -> None:
    rules = SUPPORT + 'role = "admin"\n[[rule]]\nname = "a"\nthen = { queue = "unrouted" }\n'
    assert said(check(tmp_path, rules), Severity.WARNING) == []


def test_a_queue_that_is_promised_and_not_used_is_a_warning(tmp_path: Path) -> None:
    gateway = '[queues]\nnames = [\n"support",\n"sales",\n"unrouted",\n]'
    assert said(check(tmp_path, SUPPORT, gateway), Severity.WARNING) == [
        'gateway.toml:4: nothing feeds queue "sales", and no agent sees it'
    ]


def test_empty_rules_say_how_to_add_a_touchpoint(tmp_path: Path) -> None:
    notices = said(load(tmp_path).problems, Severity.NOTICE)
    example = next(each for each in notices if "no touchpoint yet" in each)
    rules = "\n".join(line.strip() for line in example.split("\n")[1:])
    assert said(check(tmp_path, rules)) == []


def test_hours_print_their_next_seven_days(tmp_path: Path) -> None:
    rules = f"""{SUPPORT}
[hours.office]
timezone = "Europe/Lisbon"
open = ["mon-thu 09:00-13:00, 14:00-18:00", "fri 22:00-02:00"]
holidays = ["2026-11-25"]
"""
    assert (
        'rules.toml:15: hours "office" (Europe/Lisbon): Mon 2026-11-23 09:00-13:00 and 14:00-18:00,'
        " Tue 2026-11-24 09:00-13:00 and 14:00-18:00, Wed 2026-11-25 closed (holiday),"
        " Thu 2026-11-26 09:00-13:00 and 14:00-18:00, Fri 2026-11-27 22:00-02:00, Sat 2026-11-28 closed,"
        " Sun 2026-11-29 closed"
    ) in said(check(tmp_path, rules), Severity.NOTICE)


def test_two_touchpoints_of_one_mailbox_that_both_find_its_junk_are_told(tmp_path: Path) -> None:
    second = TOUCHPOINT.replace('"support"\na', '"second"\na').replace("support@example.com", "other@example.com")
    second += 'login = "support@example.com"\nfolders = ["Other"]\n'
    third = second.replace('"second"', '"third"').replace("other@", "third@").replace('"Other"', '"Third"')
    told = (
        'rules.toml:{}: touchpoint "second" and that of line 2 share the mailbox of support@example.com, so what lies'
        ' in its Junk is taken into quarantine by both; add watch = {{ junk = "" }} to one of them'
    )
    rules = TOUCHPOINT + second.replace("[[touchpoint]]", "[[touchpoint]]  # here") + AGENT
    assert told.format(marked_line(rules)) in said(check(tmp_path, rules), Severity.WARNING)
    for kept in ('watch = { junk = "" }\n', 'watch = { junk = "Spam" }\n'):
        warnings = said(check(tmp_path, TOUCHPOINT + second + kept + AGENT), Severity.WARNING)
        assert not [one for one in warnings if "Junk" in one]
    both = said(check(tmp_path, TOUCHPOINT + second + third + AGENT), Severity.WARNING)
    assert len([one for one in both if "Junk" in one]) == 2


# --- not yet in force ------------------------------------------------------------------------------------------------


def test_a_key_without_effect_is_named_where_it_is_set(tmp_path: Path) -> None:
    rules = f"""{TOUCHPOINT}
sent_copy = "append"
preview_roles = ["supervisor"]
{AGENT}
[[rule]]
name = "a"
stop = true
[rule.if]
subject = "x"
any = [
  {{ subject = "y" }},
  {{ not = {{ body = "z" }} }},
]
"""
    gateway = '[store]\nretention = "2 days"\n[imap]\n[http]\nlisten = ""\n'
    notices = [each for each in said(check(tmp_path, rules, gateway), Severity.NOTICE) if "not yet" in each]
    assert notices == [
        "gateway.toml:2: store.retention is not yet in force",
        "gateway.toml:4: http is not yet in force",
        "rules.toml:11: touchpoint.preview_roles is not yet in force",
    ]


def test_a_key_that_says_what_happens_anyway_is_not_named(tmp_path: Path) -> None:
    rules = f'{TOUCHPOINT}after_fetch = "seen"\nwatch = {{ junk = "" }}\nauth = "password"\npreview_roles = []\n{AGENT}'
    assert not [each for each in said(check(tmp_path, rules), Severity.NOTICE) if "not yet" in each]


def test_a_provider_that_wants_oauth_says_so(tmp_path: Path) -> None:
    rules = TOUCHPOINT + 'provider = "microsoft"  # here\n' + AGENT
    problems = check(tmp_path, rules)
    wanted = (
        f'rules.toml:{marked_line(rules)}: touchpoint "support" would log in by OAuth 2.0, which is not yet in force'
    )
    assert any(each.startswith(wanted) for each in said(problems, Severity.NOTICE))
    assert said(problems) == []


def test_a_touchpoint_that_only_sends_is_told_what_it_lacks_without_imap(tmp_path: Path) -> None:
    only_sends = TOUCHPOINT.replace("linked_queues", 'direction = "outbound"\nlinked_queues')
    without = only_sends.replace('imap = "imaps://imap.example.com"\n', "")
    told = [each for each in said(check(tmp_path, without + AGENT), Severity.NOTICE) if "names no imap" in each]
    assert len(told) == 1
    assert not [each for each in said(check(tmp_path, only_sends + AGENT), Severity.NOTICE) if "imap" in each]
