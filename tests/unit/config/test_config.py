"""What the rest of the gateway reads from a configuration that is good."""

from __future__ import annotations

import pickle
import time
from datetime import timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from pydantic import ValidationError

from gateway.config import All, AnyOf, Config, Hours, Not, Server, Test, Touchpoint
from gateway.config.providers import PROFILES
from tests.unit.config.writing import AGENT, PNG, SUPPORT, TOUCHPOINT, load


def touchpoint(directory: Path, keys: str) -> Touchpoint:
    rules = f'[[touchpoint]]\naddress = "Support@Example.com"\nname = "A"\nlinked_queues = ["a"]\n{keys}\n'
    return load(directory, rules).rules.touchpoints[0]


def test_a_touchpoint_is_known_by_its_address_in_lower_case(tmp_path: Path) -> None:
    found = touchpoint(tmp_path, 'imap = "imaps://a"\nsmtp = "smtps://b"')
    assert (found.id, found.address) == ("support@example.com", "Support@Example.com")
    assert (found.login, found.imap_login, found.smtp_login) == ("Support@Example.com",) * 3
    assert (found.active, found.direction, found.history, found.auth) == (False, "both", "new", "password")


def test_logins_may_differ(tmp_path: Path) -> None:
    found = touchpoint(tmp_path, 'login = "shared"\nsmtp_login = "ana"\nprovider = "gmail"')
    assert (found.imap_login, found.smtp_login) == ("shared", "ana")


def test_a_provider_knows_the_rest_and_any_key_overrides_it(tmp_path: Path) -> None:
    found = touchpoint(
        tmp_path, 'provider = "yahoo"\nsmtp = "smtp://b"\npace = { per_day = 7 }\nwatch = { poll = "2 min" }'
    )
    assert found.imap == Server("imaps", "imap.mail.yahoo.com", 993)
    assert found.smtp == Server("smtp", "b", 587)
    assert (found.pace.per_day, found.pace.per_connection) == (7, PROFILES["yahoo"].per_connection)
    assert (found.watch.poll, found.watch.renew_idle) == (timedelta(minutes=2), timedelta(minutes=3))


def test_the_profiles_are_complete() -> None:
    for name, profile in PROFILES.items():
        fields = {"provider": name, "address": "a@b.example", "name": "A"}
        found = Touchpoint.model_validate(fields)
        assert (found.imap is None) == (found.smtp is None) == (name == "custom")
        assert found.auth == profile.auth
        assert found.pace.connections >= 1
        assert (found.watch.junk, found.watch.sent) == (None, None)
        assert profile.junk
        assert profile.sent


MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)


@pytest.mark.parametrize(
    ("provider", "idle", "renew_idle", "poll", "reconnect", "imap_connections", "sent_copy", "uid_only"),
    [
        ("microsoft", True, 9 * MINUTE, 5 * MINUTE, None, 2, "provider", False),
        ("gmail", True, 9 * MINUTE, 5 * MINUTE, None, 3, "provider", False),
        ("yahoo", False, 3 * MINUTE, MINUTE, 6 * HOUR, 2, "append", True),
        ("aol", False, 3 * MINUTE, MINUTE, 6 * HOUR, 2, "append", True),
        ("icloud", True, 9 * MINUTE, 5 * MINUTE, 6 * HOUR, 2, "append", False),
        ("fastmail", True, 24 * MINUTE, 10 * MINUTE, 12 * HOUR, 2, "append", False),
        ("custom", True, 24 * MINUTE, 10 * MINUTE, 12 * HOUR, 2, "append", False),
    ],
)
def test_how_each_provider_is_watched(
    provider: str,
    idle: bool,
    renew_idle: timedelta,
    poll: timedelta,
    reconnect: timedelta | None,
    imap_connections: int,
    sent_copy: str,
    uid_only: bool,
) -> None:
    found = Touchpoint.model_validate({"provider": provider, "address": "a@b.example", "name": "A"})
    watch = found.watch
    assert (watch.idle, watch.renew_idle, watch.poll, watch.reconnect) == (idle, renew_idle, poll, reconnect)
    assert (found.profile.imap_connections, found.profile.uid_only) == (imap_connections, uid_only)
    assert found.sent_copy == sent_copy


@pytest.mark.parametrize(
    ("provider", "connections", "per_minute", "per_day", "per_connection", "recipients"),
    [
        ("microsoft", 2, 25, None, None, 500),
        ("gmail", 1, None, 1900, None, 100),
        ("yahoo", 1, None, 480, 15, 100),
        ("aol", 1, None, 480, 15, 100),
        ("icloud", 1, None, 950, None, 500),
        ("fastmail", 2, None, None, None, None),
        ("custom", 2, None, None, None, None),
    ],
)
def test_how_fast_each_provider_takes_mail(
    provider: str,
    connections: int,
    per_minute: int | None,
    per_day: int | None,
    per_connection: int | None,
    recipients: int | None,
) -> None:
    pace = Touchpoint.model_validate({"provider": provider, "address": "a@b.example", "name": "A"}).pace
    assert (pace.connections, pace.per_minute, pace.per_day) == (connections, per_minute, per_day)
    assert (pace.per_connection, pace.recipients) == (per_connection, recipients)


def test_every_way_of_watching_may_be_overridden(tmp_path: Path) -> None:
    watch = touchpoint(
        tmp_path,
        'provider = "yahoo"\nsent_copy = "provider"\nwatch = { idle = true, poll = "3 min", renew_idle = "2 min", '
        'reconnect = "1 hour", junk = "Bin", sent = " " }',
    ).watch
    assert (watch.idle, watch.poll, watch.renew_idle, watch.reconnect) == (True, 3 * MINUTE, 2 * MINUTE, HOUR)
    assert (watch.junk, watch.sent) == ("Bin", "")


def test_a_session_without_a_token_is_renewed_by_the_clock(tmp_path: Path) -> None:
    assert touchpoint(tmp_path, 'provider = "gmail"').watch.reconnect is None
    assert touchpoint(tmp_path, 'provider = "gmail"\nauth = "password"').watch.reconnect == 12 * HOUR
    explicit = 'provider = "gmail"\nauth = "password"\nwatch = { reconnect = "2 hours" }'
    assert touchpoint(tmp_path, explicit).watch.reconnect == 2 * HOUR


def test_the_copy_of_a_shared_mailboxs_mail_is_ours_to_file(tmp_path: Path) -> None:
    assert touchpoint(tmp_path, 'provider = "microsoft"').sent_copy == "provider"
    assert touchpoint(tmp_path, 'provider = "microsoft"\nsmtp_login = "ana"').sent_copy == "append"
    assert touchpoint(tmp_path, 'provider = "microsoft"\nsmtp_login = "ana"\nsent_copy = "provider"').sent_copy == (
        "provider"
    )


def test_direction_decides_which_server_is_needed(tmp_path: Path) -> None:
    assert touchpoint(tmp_path, 'direction = "inbound"\nimap = "imaps://a"').smtp is None
    outbound = touchpoint(tmp_path, 'direction = "outbound"\nsmtp = "smtps://a"')
    assert (outbound.is_inbound, outbound.is_outbound) == (False, True)


@pytest.mark.parametrize(("text", "history"), [("new", "new"), ("all", "all"), ("30 days", timedelta(days=30))])
def test_history_is_a_word_or_a_time(tmp_path: Path, text: str, history: object) -> None:
    assert touchpoint(tmp_path, f'provider = "gmail"\nhistory = "{text}"').history == history


def test_who_may_write_as_what(tmp_path: Path) -> None:
    sales = (
        TOUCHPOINT.replace("support", "sales").replace("imap.", "imap2.").replace('["sales"]', '["sales", "support"]')
    )
    inbound = TOUCHPOINT.replace("support", "press").replace("imap.", "imap3.") + 'direction = "inbound"\n'
    agents = "".join(
        f'[[agent]]\nlogin = "{login}@example.com"\nname = "A"\nring_groups = ["{group}", "press"]\n{keys}\n'
        for login, group, keys in (
            ("Ana", "support", ""),
            ("ben", "sales", ""),
            ("eva", "sales", 'touchpoints = ["SUPPORT@example.com"]'),
            ("kim", "sales", "touchpoints = []"),
        )
    )
    config = load(tmp_path, TOUCHPOINT + sales + inbound + agents)
    assert {login: [each.id for each in config.may_write_as(agent)] for login, agent in config.agents.items()} == {
        "ana@example.com": ["support", "sales"],
        "ben@example.com": ["sales"],
        "eva@example.com": ["support"],
        "kim@example.com": [],
    }


def test_touchpoints_are_found_by_any_of_their_addresses(tmp_path: Path) -> None:
    config = load(tmp_path, TOUCHPOINT + 'aliases = ["Help@example.com"]\n' + AGENT)
    assert config.touchpoint_at("HELP@example.com") is config.touchpoints["support"]
    assert config.touchpoint_at("ana@example.com") is None


def test_queues_are_those_named_or_else_those_used(tmp_path: Path) -> None:
    rules = SUPPORT + '[[rule]]\nname = "a"\nthen = { queue = ["linked", "billing"] }\n'
    assert load(tmp_path, rules).queue_names == {"support", "billing"}
    names = '[queues]\nnames = ["support", "billing", "sales"]'
    assert load(tmp_path, rules, names).queue_names == {"support", "billing", "sales"}


def test_names_of_touchpoints_become_ids(tmp_path: Path) -> None:
    rules = f"""{SUPPORT}
[[rule]]
name = "a"
touchpoints = ["Support@example.com", "support"]
stop = true
[[rule]]
name = "b"
[[template]]
name = "t"
touchpoints = ["support@example.com"]
"""
    config = load(tmp_path, rules)
    assert [each.touchpoints for each in config.rules.rules] == [("support",), None]
    assert config.rules.templates[0].touchpoints == ("support",)


def test_conditions_become_a_tree(tmp_path: Path) -> None:
    rules = f"""{SUPPORT}
[[rule]]
name = "a"
[rule.if]
subject = ["*a*", "/b/"]
"header.X-Spam" = "yes"
header.x-other = "*"
class = "auto-reply"
size_over = "1 kB"
has_attachment = false
any = [ {{ from = "x" }}, {{ all = [ {{ to = "y" }}, {{ hours = "office:open" }} ] }} ]
not = [ {{ cc = "z" }}, {{ spam_score_over = 5 }} ]
[hours.office]
open = ["mon 00:00-24:00"]
"""
    assert load(tmp_path, rules).rules.rules[0].condition == All(
        (
            Test("class", ("auto-reply",)),
            Test("subject", ("*a*", "/b/")),
            Test("size_over", (1000,)),
            Test("has_attachment", (False,)),
            Test("header.x-other", ("*",)),
            Test("header.x-spam", ("yes",)),
            AnyOf(
                (
                    All((Test("from", ("x",)),)),
                    All((All((All((Test("to", ("y",)),)), All((Test("hours", ("office:open",)),)))),)),
                )
            ),
            Not(AnyOf((All((Test("cc", ("z",)),)), All((Test("spam_score_over", (5,)),))))),
        )
    )


def test_a_rule_without_condition_is_for_all_mail(tmp_path: Path) -> None:
    assert load(tmp_path, SUPPORT + '[[rule]]\nname = "a"\nstop = true').rules.rules[0].condition == All(())


def test_texts_of_signatures_are_read_with_their_images(tmp_path: Path) -> None:
    (tmp_path / "signatures").mkdir()
    (tmp_path / "signatures" / "a.html").write_text('<p>Olá</p><img src="file:logo.png"><img src=file:mark&amp;.png>')
    (tmp_path / "signatures" / "logo.png").write_bytes(PNG)
    (tmp_path / "signatures" / "mark&.png").write_bytes(b"GIF89a")
    config = load(tmp_path, f'{TOUCHPOINT}[touchpoint.signature]\nhtml = "file:signatures/a.html"\ntext = "A"\n{AGENT}')
    signature = config.touchpoints["support"].signature
    assert signature is not None
    assert signature.html.startswith("<p>Olá</p>")
    assert (signature.html_file, signature.text_file) == (tmp_path / "signatures" / "a.html", None)
    assert (signature.text, signature.active, signature.when) == ("A", False, "always")
    image = signature.images["logo.png"]
    assert (image.subtype, image.data) == ("png", PNG)
    assert signature.images["mark&.png"].subtype == "gif"
    assert set(config.files) == {
        tmp_path / "rules.toml",
        tmp_path / "signatures" / "a.html",
        tmp_path / "signatures" / "logo.png",
        tmp_path / "signatures" / "mark&.png",
    }


def test_hours_have_the_zone_of_the_gateway_unless_they_name_one(tmp_path: Path) -> None:
    rules = '[hours.a]\nopen = ["mon 00:00-24:00"]\n[hours.b]\nopen = ["mon 00:00-24:00"]\ntimezone = "UTC"'
    hours = load(tmp_path, rules, 'timezone = "Europe/Lisbon"').rules.hours
    assert [hours[name].timezone for name in "ab"] == [ZoneInfo("Europe/Lisbon"), ZoneInfo("UTC")]


def test_an_agent_without_an_address_gets_notices_at_the_login(tmp_path: Path) -> None:
    rules = (
        SUPPORT
        + '[[agent]]\nlogin = "ben"\nname = "Ben"\n[[agent]]\nlogin = "eva"\nname = "E"\nemail = "e@b.example"\n'
    )
    agents = load(tmp_path, rules).agents
    assert [agents[login].email for login in ("ana@example.com", "ben", "eva")] == [
        "ana@example.com",
        "",
        "e@b.example",
    ]


def test_a_relative_path_begins_at_the_file_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "secret").write_text("hunter2")
    (tmp_path / "etc" / "r.toml").write_text(TOUCHPOINT + 'password = "file:secret"\n' + AGENT)
    (tmp_path / "etc" / "gateway.toml").write_text('rules = "r.toml"\nstate_dir = "state"')
    from gateway.config import load as load_config

    monkeypatch.chdir(tmp_path)
    config = load_config(Path("etc/gateway.toml"))
    monkeypatch.chdir("/")
    assert config.gateway.state_dir == tmp_path / "etc" / "state"
    assert config.touchpoints["support"].password is not None
    assert config.touchpoints["support"].password.resolve() == "hunter2"


def test_nothing_can_be_changed(tmp_path: Path) -> None:
    config = load(tmp_path, SUPPORT)
    with pytest.raises(ValidationError, match="frozen"):
        config.touchpoints["support"].active = True


def test_it_can_be_loaded_in_another_process(tmp_path: Path) -> None:
    (tmp_path / "a.html").write_text("{{ agent.name }}")
    rules = (
        f'{TOUCHPOINT}password = "env:A"\n[touchpoint.signature]\nhtml = "file:a.html"\n{AGENT}[[rule]]\nname = "a"\n'
    )
    config = load(tmp_path, rules + 'if = { subject = "/a/" }\nstop = true')
    assert config.rules.rules[0].condition == All((Test("subject", ("/a/",)),))  # which is kept once it was asked for
    again: Config = pickle.loads(pickle.dumps(config))
    assert again == config
    signature = again.touchpoints["support"].signature
    assert signature is not None
    assert signature.html_file == tmp_path / "a.html"


def test_a_thousand_rules_load_in_less_than_a_second(tmp_path: Path) -> None:
    rules = SUPPORT + "".join(
        f'[[rule]]\nname = "rule {number}"\nif = {{ subject = ["*invoice {number}*", "/re: {number}/"],'
        f' not = {{ from = "*@{number}.example" }} }}\nthen = {{ queue = "linked", tags = ["a"] }}\n'
        for number in range(1000)
    )
    began = time.process_time()
    config = load(tmp_path, rules)
    assert len(config.rules.rules) == 1000
    assert time.process_time() - began < 1


def test_hours_can_be_asked() -> None:
    assert Hours.model_validate({"open": ["mon-sun 00:00-24:00"]}).open[0].weekdays == set(range(7))
