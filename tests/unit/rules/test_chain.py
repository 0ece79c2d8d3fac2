"""The order of the chain, and what rules do together."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.config.rules_file import RulesFile
from gateway.mime.scan import scan
from gateway.model import Authentication, Findings, MessageClass, Priority, Score, Step, Verdict
from gateway.rules.chain import DMARC_TAG, UNREAD_TAG, Chain, last_resort
from gateway.rules.match import Need

TOUCHPOINTS = [
    {"id": "support", "address": "support@example.com", "name": "S", "linked_queues": ["one", "two"]},
    {"id": "sales", "address": "sales@example.com", "name": "S", "linked_queues": []},
]
RAW = b"From: Ana <ana@bank.example>\r\nSubject: Your invoice\r\nReturn-Path: <vera+7@mailer.example>\r\n\r\n"


def chain(*rules: dict[str, Any], **spam: Any) -> Chain:
    named = [{"name": f"r{number}", "if": {}, "then": {}, **rule} for number, rule in enumerate(rules, 1)]
    file = RulesFile.model_validate({"touchpoint": TOUCHPOINTS, "rule": named, "spam": spam})
    return Chain(
        file.rules,
        {one.id: one for one in file.touchpoints},
        allowlist=file.spam.allowlist,
        blocklist=file.spam.blocklist,
        quarantine_over=file.spam.quarantine_over,
        on_dmarc_fail=file.spam.on_dmarc_fail,
    )


def decide(
    *rules: dict[str, Any], touchpoint: str = "support", raw: bytes = RAW, junk: bool = False, **spam: list[str]
) -> Verdict:
    return chain(*rules, **spam).decide(touchpoint, scan(raw), len(raw), junk=junk)


def then(**action: Any) -> dict[str, Any]:
    return {"then": action}


def test_without_rules_the_linked_queues_have_it() -> None:
    verdict = decide()
    assert verdict.queues == ("one", "two")
    assert verdict == Verdict(
        MessageClass.HUMAN,
        ("one", "two"),
        trail=(
            Step("class", "no sign of a machine", "human"),
            Step("queues", "no rule names one; linked to the touchpoint", "one, two"),
        ),
    )


@pytest.mark.parametrize("touchpoint", ["sales", "removed"])
def test_what_nothing_places_is_unrouted(touchpoint: str) -> None:
    assert decide(touchpoint=touchpoint).queues == ("unrouted",)


def test_a_queue_replaces_the_linked_ones_and_several_rules_add_up() -> None:
    assert decide(then(queue="billing"), then(queue=["legal", "billing"])).queues == ("billing", "legal")


def test_linked_keeps_the_linked_ones_too() -> None:
    assert decide(then(queue=["billing", "linked"])).queues == ("billing", "one", "two")
    assert decide(then(queue="linked"), then(queue="billing")).queues == ("one", "two", "billing")
    assert decide(then(queue="linked"), touchpoint="sales").queues == ("unrouted",)


def test_tags_add_up_once_each() -> None:
    assert decide(then(tags=["a", "b"]), then(tags=["b", "c"])).tags == ("a", "b", "c")


def test_the_last_priority_and_quarantine_win() -> None:
    verdict = decide(then(priority="high", quarantine=True), then(priority="low"), then(quarantine=False))
    assert (verdict.priority, verdict.priority_set, verdict.quarantine) == (Priority.LOW, True, False)
    assert decide().priority is Priority.NORMAL
    assert not decide().priority_set


def test_a_normal_priority_that_a_rule_names_is_set() -> None:
    assert decide(then(priority="normal")).priority_set


def test_discard_reroute_and_no_auto_reply_are_carried() -> None:
    verdict = decide(then(discard=True), then(reroute=True), then(auto_reply=False))
    assert (verdict.discard, verdict.reroute, verdict.auto_reply) == (True, True, False)
    assert decide(then(auto_reply=False), then(auto_reply=True)).auto_reply


def test_stop_ends_it_only_when_the_rule_matches() -> None:
    stop = {"if": {"subject": "*invoice*"}, "then": {"tags": ["a"]}, "stop": True}
    assert decide(stop, then(tags=["b"])).tags == ("a",)
    assert decide({**stop, "if": {"subject": "x"}}, then(tags=["b"])).tags == ("b",)


def test_rules_of_other_touchpoints_are_not_asked() -> None:
    rule = {"touchpoints": ["sales"], "then": {"queue": "billing"}}
    assert decide(rule).queues == ("one", "two")
    assert decide(rule, touchpoint="sales").queues == ("billing",)
    assert decide(rule, touchpoint="removed").queues == ("unrouted",)
    assert decide(then(queue="billing"), touchpoint="removed").queues == ("billing",)


def test_rules_see_the_class() -> None:
    raw = b"Auto-Submitted: auto-replied\r\n" + RAW
    rule = {"if": {"class": "auto-reply"}, "then": {"queue": "machines"}}
    assert decide(rule, raw=raw).queues == ("machines",)
    assert decide(rule).queues == ("one", "two")


def test_the_touchpoints_own_group_is_no_list() -> None:
    raw = b"List-Id: <support.example.com>\r\n" + RAW
    assert decide(raw=raw).message_class is MessageClass.HUMAN
    assert decide(raw=raw, touchpoint="sales").message_class is MessageClass.LIST


@pytest.mark.parametrize(
    ("spam", "quarantine"),
    [
        pytest.param({"blocklist": ["ana@bank.example"]}, True, id="address"),
        pytest.param({"blocklist": ["ANA@Bank.example"]}, True, id="any-case"),
        pytest.param({"blocklist": ["*@bank.example"]}, True, id="domain"),
        pytest.param({"blocklist": ["*@example"]}, False, id="not-the-domain-above"),
        pytest.param({"blocklist": ["*@*.example"]}, True, id="return-path-of-any-domain-below"),
        pytest.param({"blocklist": ["vera+*@mailer.example"]}, True, id="return-path"),
        pytest.param({"blocklist": ["*@bank.example"], "allowlist": ["ana@bank.example"]}, False, id="allowed"),
        pytest.param({"blocklist": ["*@bank.example"], "allowlist": ["*@mailer.example"]}, True, id="allowed-by-path"),
        pytest.param({"blocklist": ["eve@bank.example"]}, False, id="another"),
    ],
)
def test_the_lists_know_the_sender(spam: dict[str, list[str]], quarantine: bool) -> None:
    verdict = chain(**spam).decide("support", scan(RAW), len(RAW))
    assert verdict.quarantine is quarantine
    assert verdict.queues == ("one", "two"), "where it would be if it were released"


def test_any_author_may_be_blocked() -> None:
    raw = b"From: a@x.example, b@y.example\r\n\r\n"
    assert decide(raw=raw, blocklist=["*@y.example"]).quarantine


def test_a_rule_may_release_what_is_blocked() -> None:
    rule = {"if": {"subject": "*invoice*"}, "then": {"quarantine": False}}
    assert not decide(rule, blocklist=["*@bank.example"]).quarantine


@pytest.mark.parametrize(
    ("junk", "rules", "spam", "quarantine", "junk_alone"),
    [
        pytest.param(True, [], {}, True, True, id="junk"),
        pytest.param(False, [], {}, False, False, id="no-junk"),
        pytest.param(True, [], {"allowlist": ["*@bank.example"]}, False, False, id="allowlist-before-provider"),
        pytest.param(True, [], {"blocklist": ["*@bank.example"]}, True, False, id="blocked-too"),
        pytest.param(False, [], {"blocklist": ["*@bank.example"]}, True, False, id="blocked"),
        pytest.param(True, [{"quarantine": False}], {}, False, False, id="a-rule-releases"),
        pytest.param(True, [{"quarantine": True}], {}, True, False, id="a-rule-wants-it-too"),
        pytest.param(True, [{"tags": ["a"]}], {}, True, True, id="a-rule-about-something-else"),
        pytest.param(True, [{"quarantine": True}, {"quarantine": False}], {}, False, False, id="the-last-rule-wins"),
        pytest.param(True, [{"quarantine": False}, {"quarantine": True}], {}, True, False, id="the-last-rule-wants-it"),
        pytest.param(
            True,
            [{"quarantine": True}],
            {"allowlist": ["*@bank.example"]},
            True,
            False,
            id="a-rule-after-the-allowlist",
        ),
    ],
)
def test_what_lies_in_the_providers_junk_is_quarantined_unless_list_or_rule_say_no(
    junk: bool, rules: list[dict[str, Any]], spam: dict[str, list[str]], quarantine: bool, junk_alone: bool
) -> None:
    verdict = chain(*(then(**action) for action in rules), **spam).decide("support", scan(RAW), 10, junk=junk)
    assert (verdict.quarantine, verdict.junk_alone) == (quarantine, junk_alone)
    assert verdict.queues == ("one", "two"), "where it would be if it were released"


def test_the_providers_verdict_stands_between_lists_and_rules() -> None:
    verdict = decide(then(quarantine=False), junk=True, allowlist=["*@bank.example"])
    assert [(step.step, step.verdict) for step in verdict.trail[1:4]] == [
        ("allowlist", "not blocked"),
        ("provider", "no quarantine: the sender is on the allowlist"),
        ("rule r1", "no quarantine"),
    ]
    assert Step("provider", "it lies in the provider's Junk", "quarantine") in decide(junk=True).trail
    assert not any(step.step == "provider" for step in decide().trail)


def test_the_trail_tells_what_had_a_part() -> None:
    rules: list[dict[str, Any]] = [
        {"if": {"subject": "x"}, "then": {"queue": "no"}},
        {
            "if": {"subject": "*invoice*"},
            "then": {"queue": "billing", "tags": ["a"], "priority": "high", "quarantine": False, "reroute": True},
        },
        {"if": {"spf": "pass"}, "then": {"queue": "no"}},
        {"then": {"discard": True, "auto_reply": False}, "stop": True},
        then(queue="never"),
    ]
    assert decide(*rules, blocklist=["*@bank.example"]).trail == (
        Step("class", "no sign of a machine", "human"),
        Step("blocklist", "ana@bank.example is on it as *@bank.example", "quarantine"),
        Step(
            "rule r2",
            'subject "Your invoice" matches *invoice*',
            "queue billing, priority high, tag a, no quarantine, reroute",
        ),
        Step("rule r3", "spf is not known", "no match: a condition cannot be answered"),
        Step("rule r4", "no condition", "discard, no auto-reply, stop"),
        Step("queues", "rules say so", "billing"),
    )


def test_explaining_adds_steps_and_changes_nothing_else() -> None:
    rules: list[dict[str, Any]] = [{"if": {"subject": "x"}}, {"then": {"tags": ["a"]}, "stop": True}, then(tags=["b"])]
    made = chain(*rules)
    plain = made.decide("support", scan(RAW), 10)
    explained = made.decide("support", scan(RAW), 10, explain=True)
    said = {(step.step, step.verdict) for step in plain.trail}
    assert [one.step for one in explained.trail if (one.step, one.verdict) in said] == [one.step for one in plain.trail]
    assert Step("blocklist", "ana@bank.example is on neither list", "not blocked") in explained.trail
    assert Step("provider", "it does not lie in the provider's Junk", "no quarantine") in explained.trail
    assert Step("rule r1", 'no: subject "Your invoice" matches none of x', "no match") in explained.trail
    assert Step("rule r3", "not looked at", "-") in explained.trail
    assert (plain.queues, plain.tags) == (explained.queues, explained.tags)
    allowed = chain(allowlist=["*@bank.example"]).decide("support", scan(RAW), 10)
    assert allowed.trail[1] == Step("allowlist", "ana@bank.example is on it as *@bank.example", "not blocked")


def test_a_rule_that_does_nothing_says_so() -> None:
    assert decide({}).trail[1] == Step("rule r1", "no condition", "matches, and does nothing")


def test_the_last_resort_is_the_linked_queues() -> None:
    verdict = last_resort(("one", "two"), "it broke")
    assert verdict.queues == ("one", "two")
    assert verdict.tags == (UNREAD_TAG,)
    assert not verdict.auto_reply
    assert verdict.trail[0] == Step("intake", "it broke", "taken as it is")
    assert last_resort((), "it broke").queues == ("unrouted",)


def test_what_cannot_be_judged_stays_in_quarantine_where_the_provider_calls_it_junk() -> None:
    verdict = last_resort(("one",), "it broke", junk=True)
    assert (verdict.quarantine, verdict.junk_alone, verdict.queues) == (True, True, ("one",))
    assert not last_resort(("one",), "it broke").quarantine


# --- what was found out beyond the header ----------------------------------------------------------------------------

FORGED = Authentication(dmarc="fail", by="mx.example", detail="bank.example asks to reject")


def judge(findings: Findings, *rules: dict[str, Any], junk: bool = False, **spam: Any) -> Verdict:
    return chain(*rules, **spam).decide("support", scan(RAW), len(RAW), junk=junk, findings=findings)


def test_a_score_over_the_limit_is_quarantine() -> None:
    spam = judge(Findings(score=Score(6.1, "rspamd", ("BAYES_SPAM", "URIBL"))), quarantine_over=6.0)
    assert (spam.quarantine, spam.junk_alone) == (True, False)
    assert Step("scanner", "rspamd says 6.1, over 6 (BAYES_SPAM, URIBL)", "quarantine") in spam.trail
    assert not judge(Findings(score=Score(6.0, "rspamd")), quarantine_over=6.0).quarantine


def test_a_scanner_that_said_nothing_stops_nothing_and_is_told_of() -> None:
    verdict = judge(Findings(no_score="rspamd does not answer"))
    assert not verdict.quarantine
    assert Step("scanner", "rspamd does not answer", "no score") in verdict.trail


@pytest.mark.parametrize(("on_dmarc_fail", "quarantine"), [("tag", False), ("quarantine", True)])
def test_a_forged_sender_is_tagged_or_quarantined(on_dmarc_fail: str, quarantine: bool) -> None:
    verdict = judge(Findings(authentication=FORGED), then(tags=["a"]), on_dmarc_fail=on_dmarc_fail)
    assert verdict.quarantine is quarantine
    assert verdict.tags == (DMARC_TAG, "a")
    words = f"quarantine, tag {DMARC_TAG}" if quarantine else f"tag {DMARC_TAG}"
    assert Step("dmarc", "bank.example asks to reject", words) in verdict.trail


def test_an_agents_block_is_quarantine_as_the_blocklist_is() -> None:
    verdict = judge(Findings(block="*@bank.example"))
    assert (verdict.quarantine, verdict.blocked, verdict.junk_alone) == (True, True, False)
    assert Step("blocklist", "ana@bank.example is blocked as *@bank.example", "quarantine") in verdict.trail


@pytest.mark.parametrize(
    "findings",
    [
        Findings(block="*@bank.example"),
        Findings(score=Score(99, "rspamd")),
        Findings(authentication=FORGED),
    ],
    ids=["block", "score", "dmarc"],
)
def test_who_is_on_the_allowlist_is_spared_and_rules_have_the_last_word(findings: Findings) -> None:
    spam: dict[str, Any] = {"on_dmarc_fail": "quarantine"}
    assert judge(findings, **spam).quarantine
    assert not judge(findings, allowlist=["ana@bank.example"], **spam).quarantine
    assert not judge(findings, then(quarantine=False), **spam).quarantine
    assert judge(findings, then(quarantine=True), allowlist=["ana@bank.example"], **spam).quarantine


def test_what_else_speaks_against_junk_makes_it_ours() -> None:
    assert judge(Findings(), junk=True).junk_alone
    assert not judge(Findings(score=Score(99, "rspamd")), junk=True).junk_alone


def test_rules_see_what_was_found_out() -> None:
    rule = {"if": {"spam_score_over": 3, "dmarc": "fail"}, "then": {"queue": "suspects"}}
    assert judge(Findings(score=Score(4, "rspamd"), authentication=FORGED), rule).queues == ("suspects",)
    assert judge(Findings(score=Score(4, "rspamd")), rule).queues == ("one", "two")


def test_only_what_a_rule_hangs_on_is_wanted() -> None:
    made = chain(
        {"if": {"subject": "*invoice*", "attachment_name": "*.pdf"}},
        {"if": {"subject": "other", "body": "*x*"}},
        {"touchpoints": ["sales"], "if": {"known_sender": True}},
    )
    facts = scan(RAW)
    assert made.needs("support") == {Need.ATTACHMENTS, Need.BODY}
    assert made.needs("sales") == {Need.ATTACHMENTS, Need.BODY, Need.KNOWN_SENDER}
    assert made.needs("removed") == {Need.ATTACHMENTS, Need.BODY}
    assert made.wants("support", facts, 10, Findings()) == {Need.ATTACHMENTS}
    assert made.wants("support", facts, 10, Findings(attachments=())) == set()
    assert made.wants("sales", scan(b"Subject: no\r\n\r\n"), 10, Findings()) == {Need.KNOWN_SENDER}
    assert chain().needs("support") == chain().wants("support", facts, 10, Findings()) == set()


@pytest.mark.parametrize(
    ("value", "quarantine"), [("9", True), ("5", True), ("4", False), ("-1", False), ("", False), ("5 x", False)]
)
def test_what_the_provider_marks_as_spam_is_quarantine(value: str, quarantine: bool) -> None:
    raw = f"X-MS-Exchange-Organization-SCL: {value}\r\n".encode() + RAW
    touchpoint = {"id": "m", "address": "m@example.com", "name": "M", "linked_queues": ["one"], "provider": "microsoft"}
    file = RulesFile.model_validate({"touchpoint": [touchpoint], "spam": {"allowlist": ["vip@bank.example"]}})
    made = Chain((), {"m": file.touchpoints[0]}, allowlist=file.spam.allowlist)
    verdict = made.decide("m", scan(raw), len(raw))
    assert (verdict.quarantine, verdict.junk_alone) == (quarantine, False)
    assert not made.decide("m", scan(raw.replace(b"ana@", b"vip@")), len(raw)).quarantine
    told = Step("provider", f"the provider marks it: x-ms-exchange-organization-scl is {value}", "quarantine")
    assert (told in verdict.trail) is quarantine
    assert not decide(raw=raw).quarantine, "elsewhere anybody could have written it"
