"""`explain` and `rules diff`: why mail went where it went, where it would go, and that asking changes nothing."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trio
from structlog.testing import capture_logs

from gateway.cli.main import main
from gateway.config import load
from gateway.inbound.inquiry import Inquiry
from gateway.inbound.intake import Intake
from gateway.mime import reading
from gateway.model import Arrival, Location, Role, read_id, show_id, to_ms
from gateway.rulebook import Rulebook
from gateway.state import blocks, folders, quarantine
from gateway.state.blocks import NewBlock
from gateway.state.folders import Folder, Opening
from gateway.state.quarantine import Review
from gateway.state.store import Store

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
password = "env:SECRET"
linked_queues = ["support"]

[[touchpoint]]
id = "billing"
address = "billing@example.com"
name = "Billing"
provider = "gmail"
auth = "password"
password = "env:SECRET"
linked_queues = ["billing"]

[[rule]]
name = "invoices"
if = { subject = "*invoice*", from = "*@shop.example" }
then = { queue = "billing", priority = "high" }

[[rule]]
name = "forged"
touchpoints = ["billing"]
if = { dmarc = "fail" }
then = { quarantine = true }

[[rule]]
name = "refunds"
if = { body = "*refund*" }
then = { queue = "refunds" }

[[rule]]
name = "strangers"
if = { known_sender = false }
then = { tags = ["stranger"] }
"""


def letter(
    number: int, subject: str = "Hello", sender: str = "ana@shop.example", body: str = "body", *fields: str
) -> bytes:
    lines = [f"From: Ana <{sender}>", "To: support@example.com", f"Subject: {subject}", f"Message-ID: <{number}@c>"]
    return "\r\n".join([*fields, *lines, "", body, ""]).encode()


class Site:
    """A site in a directory: mail comes in, commands are run, each with the store to itself."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self._capture = capture
        self.rules = home / "rules.toml"
        self.rules.write_text(RULES)
        self.config_path = home / "gateway.toml"
        self.config_path.write_text(f'hostname = "gw.example.com"\nstate_dir = "{home / "state"}"\n')
        (home / "state").mkdir()
        self._uid = 0

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self._capture.readouterr()
        exit_code = main([*words, "--config", str(self.config_path)])
        return exit_code, *self._capture.readouterr()

    def json(self, *words: str) -> Any:
        exit_code, out, err = self(*words, "--json")
        assert exit_code == 0, err
        return json.loads(out)

    def in_store(self, work: Callable[[Store], Any]) -> Any:
        store = Store.open(self.home / "state" / "gateway.db")
        try:
            with capture_logs():
                return work(store)
        finally:
            store.close()

    def bring(
        self, *letters: bytes, touchpoint: str = "support", role: Role = Role.QUEUE, ago: timedelta | None = None
    ) -> list[str]:
        """Take letters in; return their ids."""
        config = load(self.config_path)
        at = datetime.now(UTC) - (ago or timedelta())

        def work(store: Store) -> list[str]:
            folder = role.value.title()
            opening = Opening(Folder(touchpoint, folder, 1, 0, 0, 0, 0, role), ())
            store.submit(folders.open_folder, opening).result(5)

            async def read(raw: bytes) -> reading.Content:
                return reading.read(raw)

            async def take() -> list[str]:
                intake = Intake(store, lambda: config, now_ms=lambda: to_ms(at), inquiry=Inquiry(store, read=read))
                arrivals = []
                for raw in letters:
                    self._uid += 1
                    location = Location(folder, 1, self._uid)
                    arrivals.append(
                        Arrival(store.ids.next(), touchpoint, location, at, at, raw, 0, self._uid, role=role)
                    )
                await intake.accept(arrivals)
                return [show_id(one.id) for one in arrivals]

            return trio.run(take)

        found: list[str] = self.in_store(work)
        return found

    def digest(self) -> str:
        """What the store says of all messages, and the files."""

        def work(store: Store) -> str:
            rows = store.read(lambda db: db.execute("SELECT * FROM message JOIN conversation").fetchall()).result(5)
            return hashlib.sha256(repr(rows).encode() + self.rules.read_bytes()).hexdigest()

        found: str = self.in_store(work)
        return found


@pytest.fixture
def site(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Site:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    return Site(tmp_path, capsys)


def steps(found: list[dict[str, Any]], when: str) -> dict[str, tuple[str, str]]:
    return {step["step"]: (step["detail"], step["verdict"]) for step in found if step["when"] == when}


# --- explain ---------------------------------------------------------------------------------------------------------


def test_every_rule_is_shown_with_each_condition_its_value_and_its_answer(site: Site) -> None:
    (id,) = site.bring(letter(1, "My invoice", "ana@bank.example", "I want a refund"))
    found = site.json("explain", id)
    assert all(list(step) == ["at", "step", "detail", "verdict", "when"] for step in found)
    now = steps(found, "now")
    assert [step for step in now if step.startswith("rule ")] == [
        *("rule invoices", "rule forged", "rule refunds", "rule strangers")
    ]
    assert now["rule invoices"] == (
        'no: from "ana@bank.example, Ana <ana@bank.example>" matches none of *@shop.example; '
        'yes: subject "My invoice" matches *invoice*',
        "no match",
    )
    assert now["rule forged"] == ("only for billing", "not for this touchpoint")
    assert now["rule refunds"] == ('yes: body "I want a refund" matches *refund*', "queue refunds")
    assert now["rule strangers"] == ("yes: the sender is not known", "tag stranger")
    assert now["verdict"] == ("support, as then", "queue refunds, class human, priority normal, tag stranger")


def test_then_is_what_was_recorded_and_now_are_the_rules_of_today(site: Site) -> None:
    (id,) = site.bring(letter(1, "My invoice"))
    site.rules.write_text(RULES.replace('queue = "billing"', 'queue = "sales"'))
    found = site.json("explain", id)
    assert steps(found, "then")["verdict"] == ("support", "queue billing, class human")
    assert steps(found, "now")["verdict"][0] == "support, not as then"
    assert steps(found, "now")["queues"][1] == "sales"
    times = {step["at"] for step in found if step["when"] == "then"}
    assert len(times) == 1
    exit_code, out, _ = site("explain", id)
    assert exit_code == 0
    assert out.index("Then, at ") < out.index("Now:") < out.index("not as then")


def test_what_has_changed_since_about_the_sender_does_not_count_but_a_block_does(site: Site) -> None:
    first, second = site.bring(letter(1), letter(2))
    assert steps(site.json("explain", first), "now")["rule strangers"][0] == "yes: the sender is not known"
    (third,) = site.bring(letter(3))
    assert steps(site.json("explain", third), "now")["rule strangers"][0] == "no: the sender is known"
    block = NewBlock("", "*@shop.example", to_ms(datetime.now(UTC)))
    site.in_store(lambda store: store.submit(blocks.add, block).result(5))
    found = site.json("explain", second)
    assert steps(found, "now")["blocklist"][1] == "quarantine"
    assert steps(found, "now")["verdict"][1].startswith("quarantine, ")
    assert steps(found, "then")["verdict"][1].startswith("quarantine, ")  # what was open has followed, and says so


def test_what_was_not_asked_then_is_found_out_where_it_can_be(site: Site) -> None:
    site.rules.write_text(RULES[: RULES.index('[[rule]]\nname = "refunds"')])
    (id,) = site.bring(letter(1, body="a refund"))
    site.bring(letter(2, body="a refund"))
    site.rules.write_text(RULES)
    now = steps(site.json("explain", id), "now")
    assert now["rule refunds"][1] == "queue refunds"
    assert now["rule strangers"] == ("yes: the sender is not known", "tag stranger")


def test_a_message_of_a_conversation_stays_with_it(site: Site) -> None:
    site.bring(letter(1, "My invoice"))
    (id,) = site.bring(letter(2, "Re: x", "ana@shop.example", "more", "In-Reply-To: <1@c>"))
    found = site.json("explain", id)
    assert steps(found, "then")["verdict"][1] == "queue billing, class human"
    assert steps(found, "now")["conversation"] == ("continues one that is here", "stays in billing")
    assert steps(found, "now")["verdict"][0] == "support, as then"


def test_mail_out_of_junk_is_explained_as_that_also_after_a_person_has_looked(site: Site) -> None:
    (id,) = site.bring(letter(1), role=Role.JUNK)
    assert steps(site.json("explain", id), "now")["verdict"][1].startswith("quarantine")
    review = Review(read_id(id) or 0, to_ms(datetime.now(UTC)))
    site.in_store(lambda store: store.submit(quarantine.release, review).result(5))
    found = site.json("explain", id)
    assert steps(found, "then")["verdict"][1].startswith("quarantine")
    assert steps(found, "now")["verdict"][0] == "support, as then"


def test_a_message_can_be_explained_as_if_it_had_come_elsewhere(site: Site) -> None:
    (id,) = site.bring(letter(1))
    found = site.json("explain", id, "--touchpoint", "billing@example.com")
    assert steps(found, "now")["verdict"][1].startswith("queue billing")
    assert steps(found, "now")["rule forged"] == ("unknown: dmarc is not known", steps(found, "now")["rule forged"][1])


def test_a_file_is_judged_as_new_mail_of_the_touchpoint_that_it_is_addressed_to(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "letter.eml"
    file.write_bytes(letter(1, "My invoice", "ana@shop.example", "a refund"))
    found = site.json("explain", str(file))
    assert {step["when"] for step in found} == {"now"}
    assert steps(found, "now")["queues"] == ("rules say so", "billing, refunds")
    assert steps(found, "now")["verdict"][0] == "as new mail of support"
    site.bring(letter(2))
    assert steps(site.json("explain", str(file)), "now")["rule strangers"][0] == "no: the sender is known"


def test_of_a_file_the_providers_own_word_about_the_sender_counts(site: Site, tmp_path: Path) -> None:
    file = tmp_path / "letter.eml"
    word = "Authentication-Results: mx.google.com; spf=fail smtp.mailfrom=x@y.example; dmarc=fail header.from=y.example"
    file.write_bytes(letter(1, "Hello", "ana@shop.example", "body", word))
    now = steps(site.json("explain", str(file), "--touchpoint", "billing"), "now")
    assert now["rule forged"] == ("yes: dmarc is fail, says mx.google.com", "quarantine")
    now = steps(site.json("explain", str(file), "--touchpoint", "support"), "now")
    assert now["dmarc"][0] == "not known"


def test_asking_changes_nothing(site: Site, tmp_path: Path) -> None:
    (id,) = site.bring(letter(1, "My invoice"))
    file = tmp_path / "letter.eml"
    file.write_bytes(letter(1))
    before = site.digest()
    for words in (["explain", id], ["explain", str(file)], ["rules", "diff", str(site.rules)], ["trace", id]):
        assert site(*words)[0] == 0
    assert site.digest() == before


def test_without_its_bytes_only_then_can_be_told(site: Site) -> None:
    (id,) = site.bring(letter(1))

    def prune(store: Store) -> None:
        def operation(db: Any, items: Any) -> Any:
            db.execute("DELETE FROM chunk")
            return [None] * len(items)

        store.submit(operation, None).result(5)

    site.in_store(prune)
    exit_code, out, err = site("explain", id)
    assert exit_code == 0
    assert "Then, at" in out
    assert "Now:" not in out
    assert "its bytes are no longer kept" in err


@pytest.mark.parametrize(
    ("words", "said", "exit_code"),
    [
        pytest.param(["1r7hq2x0"], "no message 1r7hq2x0 came in", 1, id="unknown-id"),
        pytest.param(["!!"], "is not an id", 2, id="no-id"),
        pytest.param(["gone.eml"], "gone.eml: No such file", 1, id="no-file"),
        pytest.param(["./letter.eml", "--touchpoint", "x"], 'unknown touchpoint "x"; there are: support', 2, id="no-t"),
        pytest.param(["./letter.eml"], "say with --touchpoint at which it would arrive", 2, id="to-nobody"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(
    site: Site, monkeypatch: pytest.MonkeyPatch, words: list[str], said: str, exit_code: int
) -> None:
    monkeypatch.chdir(site.home)
    (site.home / "letter.eml").write_bytes(b"From: a@b.example\r\n\r\n")
    done = site("explain", *words)
    assert (done[0], done[1]) == (exit_code, "")
    assert said in done[2]
    assert done[2].count("\n") == 1


def test_a_conversation_of_several_messages_asks_which_is_meant(site: Site) -> None:
    first, second = site.bring(letter(1), letter(2, "Re", "ana@shop.example", "x", "In-Reply-To: <1@c>"))
    conversation = json.loads(site("queue", "list", "--json")[1])[0]["id"]
    exit_code, _, err = site("explain", conversation)
    assert exit_code == 2
    assert first in err
    assert second in err


# --- rules diff ------------------------------------------------------------------------------------------------------


def test_messages_that_would_go_elsewhere_are_listed_from_where_to_where(site: Site, tmp_path: Path) -> None:
    moved, same = site.bring(letter(1, "My invoice"), letter(2))
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace('queue = "billing"', 'queue = "sales"'))
    (difference,) = site.json("rules", "diff", str(new))
    assert difference["id"] == moved
    assert (difference["old"]["place"], difference["new"]["place"]) == ("queue billing", "queue sales")
    assert difference["because"] == "rule invoices"
    exit_code, out, err = site("rules", "diff", str(new))
    assert exit_code == 0
    assert same not in out
    assert "queue billing  queue sales  rule invoices" in out
    assert err == "2 looked at, 1 would go elsewhere\n"
    assert site.json("rules", "diff", str(site.rules)) == []


def test_what_differs_beside_the_place_is_shown_when_asked_for(site: Site, tmp_path: Path) -> None:
    site.bring(letter(1, "My invoice"))
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace('priority = "high"', 'priority = "low"'))
    assert site.json("rules", "diff", str(new)) == []
    (difference,) = site.json("rules", "diff", str(new), "--all")
    assert (difference["moves"], difference["new"]["priority"]) == (False, "low")
    assert "priority high  priority low" in site("rules", "diff", str(new), "--all")[1]
    assert "1 only with other tags, priority or auto-reply (--all shows them)" in site("rules", "diff", str(new))[2]


def test_only_what_came_lately_is_looked_at(site: Site, tmp_path: Path) -> None:
    site.bring(letter(1))

    def move_back(store: Store) -> None:
        def operation(db: Any, items: Any) -> Any:
            db.execute("UPDATE message SET id = id - 864000000 * 2")
            db.execute("UPDATE chunk SET id = id - (864000000 * 2 << 16)")
            return [None] * len(items)

        store.submit(operation, None).result(5)

    site.in_store(move_back)
    site.bring(letter(2))
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace('linked_queues = ["support"]', 'linked_queues = ["elsewhere"]'))
    assert len(site.json("rules", "diff", str(new))) == 1
    assert len(site.json("rules", "diff", str(new), "--since", "30d")) == 2


def test_a_message_that_continues_a_conversation_would_go_nowhere_else(site: Site, tmp_path: Path) -> None:
    site.bring(letter(1), letter(2, "My invoice", "ana@shop.example", "x", "In-Reply-To: <1@c>"))
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace('queue = "billing"', 'queue = "sales"'))
    assert site.json("rules", "diff", str(new)) == []
    new.write_text(RULES.replace('priority = "high"', "reroute = true"))
    (difference,) = site.json("rules", "diff", str(new))
    assert (difference["old"]["place"], difference["new"]["place"]) == ("queue support", "queue billing")


def test_rules_that_cannot_be_loaded_are_told_with_all_their_problems(site: Site, tmp_path: Path) -> None:
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace('subject = "*invoice*"', 'subjct = "*invoice*"').replace("[[rule]]", "[[rle]]", 1))
    exit_code, out, err = site("rules", "diff", str(new))
    assert (exit_code, out) == (1, "")
    assert "new.toml:" in err


def test_the_rules_in_force_are_compared_and_not_those_in_the_file(site: Site, tmp_path: Path) -> None:
    site.bring(letter(1, "My invoice"))
    Rulebook.open(site.config_path, load(site.config_path).gateway)  # a daemon has loaded them
    site.rules.write_text("[[broken")
    new = tmp_path / "new.toml"
    new.write_text(RULES.replace('queue = "billing"', 'queue = "sales"'))
    (difference,) = site.json("rules", "diff", str(new))
    assert difference["old"]["place"] == "queue billing"
