"""Blocks as people set them, from the command line to the mail that comes afterwards."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.cli.block import spelt_out
from gateway.cli.main import main
from gateway.commands import handlers
from gateway.config.rules_file import Spam
from gateway.desk import Desk, offline_desk
from gateway.errors import CommandError, Unavailable
from gateway.inbound.inquiry import Inquiry
from gateway.inbound.intake import Intake
from gateway.inbound.scoring import Letter
from gateway.model import Arrival, Location, Role, Score, show_id
from gateway.state import folders
from gateway.state.folders import Folder, Opening
from tests.support.desk import arrive, write_site

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)
SENDER = "carla@customer.example"


@pytest.fixture
def site(tmp_path: Path) -> Path:
    return write_site(tmp_path)


@pytest.fixture
def desk(site: Path) -> Iterator[Desk]:
    with offline_desk(site) as desk:
        yield desk


def ask(desk: Desk, command: str, **args: Any) -> Any:
    return trio.run(handlers(desk)[command], args)


def refusal(desk: Desk, command: str, **args: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        ask(desk, command, **args)
    assert "\n" not in str(caught.value)
    return caught.value


def add_spam(site: Path, lines: str) -> None:
    rules = site.with_name("rules.toml")
    rules.write_text(f"{rules.read_text()}\n[spam]\n{lines}\n")


# --- what the handlers answer ----------------------------------------------------------------------------------------


def test_a_block_is_answered_with_what_followed_and_listed_with_its_reason(desk: Desk) -> None:
    message, conversation = arrive(desk.store, "<a@c>")
    done = ask(desk, "block.add", address="Carla@Customer.example", message=show_id(message))
    assert done == {
        "pattern": SENDER,
        "touchpoint": None,
        "is_new": True,
        "messages": [show_id(message)],
        "conversations": [show_id(conversation)],
    }
    (listed,) = ask(desk, "block.list")
    assert list(listed) == ["pattern", "touchpoint", "by", "at", "message", "hits", "hit_at", "source"]
    assert (listed["pattern"], listed["message"], listed["source"]) == (SENDER, show_id(message), "block")
    assert ask(desk, "queue.list") == []
    assert ask(desk, "quarantine.list")[0]["cause"].startswith("blocklist: blocked since")
    again = ask(desk, "block.add", address=SENDER)
    assert (again["is_new"], again["messages"]) == (False, [])


def test_a_touchpoint_is_named_as_everywhere(desk: Desk) -> None:
    arrive(desk.store, "<a@c>")
    assert ask(desk, "block.add", address=SENDER, touchpoint="billing@example.com")["messages"] == []
    assert ask(desk, "block.add", address=SENDER, touchpoint="support")["touchpoint"] == "support"
    assert [one["touchpoint"] for one in ask(desk, "block.list")] in (["support", "billing"], ["billing", "support"])
    assert refusal(desk, "block.add", address=SENDER, touchpoint="suport").exit_code == 2


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("Support@example.com", "is our own (touchpoint support)"),
        ("ana@example.com", "is our own (agent Ana@example.com)"),
        ("sofia@home.example", "is our own (agent sofia@example.com)"),
        ("*@example.com", "and 6 more of ours"),
        ("*@home.example", "would block our own sofia@home.example (agent sofia@example.com)"),
    ],
)
def test_nobody_blocks_our_own(desk: Desk, address: str, why: str) -> None:
    error = refusal(desk, "block.add", address=address, yes=True)
    assert why in str(error)
    assert error.exit_code == 1
    assert ask(desk, "block.list") == []


def test_what_is_no_address_is_a_wrong_argument(desk: Desk) -> None:
    for command in ("block.add", "block.remove"):
        assert refusal(desk, command, address="worse.example").exit_code == 2


def test_a_whole_provider_is_blocked_only_by_who_has_seen_the_count(desk: Desk) -> None:
    error = refusal(desk, "block.add", address="*@Gmail.com", touchpoint="support")
    assert str(error) == (
        "gmail.com is a whole mail provider. In the last 30 days this would have caught 0 messages of 0 senders, 0 of"
        " them in conversations that were answered. Nothing was changed; to do it all the same:"
        " mail-gateway block add '*@gmail.com' --touchpoint support --yes"
    )
    assert ask(desk, "block.list") == []
    assert ask(desk, "block.add", address="*@gmail.com", yes=True)["is_new"]
    assert ask(desk, "block.add", address="somebody@gmail.com")["is_new"], "one address is no provider"


def test_what_the_allowlist_lets_through_cannot_be_blocked(site: Path) -> None:
    add_spam(site, 'allowlist = ["*@customer.example"]')
    with offline_desk(site) as desk:
        assert "wins over every block" in str(refusal(desk, "block.add", address=SENDER))
        assert ask(desk, "block.list") == []


def test_the_list_in_the_file_is_shown_and_taken_out_there(site: Path) -> None:
    add_spam(site, 'blocklist = ["*@worse.example", "carla@customer.example"]')
    with offline_desk(site) as desk:
        ask(desk, "block.add", address=SENDER)
        listed = ask(desk, "block.list")
        assert [(one["pattern"], one["source"]) for one in listed] == [
            (SENDER, "block"), ("*@worse.example", "rules.toml"), (SENDER, "rules.toml")
        ]  # fmt: skip
        assert len(ask(desk, "block.list", limit=1)) == 1
        assert ask(desk, "block.remove", address=SENDER)["still"] == ["in rules.toml"]
        assert "take it out there" in str(refusal(desk, "block.remove", address=SENDER))


def test_who_is_blocked_elsewhere_is_named_there(desk: Desk) -> None:
    ask(desk, "block.add", address=SENDER, touchpoint="support")
    error = refusal(desk, "block.remove", address=SENDER)
    assert str(error).endswith(f"for support only: mail-gateway block remove '{SENDER}' --touchpoint support")
    ask(desk, "block.add", address=SENDER)
    assert ask(desk, "block.remove", address=SENDER)["still"] == ["for support"]
    ask(desk, "block.remove", address=SENDER, touchpoint="support")
    assert "is not blocked for support" in str(refusal(desk, "block.remove", address=SENDER, touchpoint="support"))


def test_a_block_of_a_touchpoint_that_is_gone_can_still_be_removed(desk: Desk) -> None:
    trio.run(_block_for, desk, "formerly")
    assert ask(desk, "block.remove", address=SENDER, touchpoint="formerly")["touchpoint"] == "formerly"
    assert ask(desk, "block.list") == []


async def _block_for(desk: Desk, touchpoint: str) -> None:
    from gateway.commands_block import block
    from gateway.state.blocks import NewBlock

    await block(desk, NewBlock(touchpoint, SENDER, 1))


def test_a_block_that_could_not_be_kept_is_not_in_force(desk: Desk) -> None:
    desk.store.close()
    with pytest.raises(Unavailable):
        ask(desk, "block.add", address=SENDER)
    assert desk.blocks.find("support", [SENDER]) == ""


# --- the mail that comes afterwards ----------------------------------------------------------------------------------


def letters(desk: Desk, *numbers: int, sender: str = SENDER) -> list[Arrival]:
    folder = Folder("support", "INBOX", 1, 0, 0, 0, 0)
    desk.store.submit(folders.open_folder, Opening(folder, ())).result(5)
    return [
        Arrival(
            desk.store.ids.next(), "support", Location("INBOX", 1, number), AT, AT,
            f"From: Carla <{sender}>\r\nSubject: Hello\r\nMessage-ID: <{number}@c>\r\n\r\nbody\r\n".encode(),
            number - 1, number,
        )
        for number in numbers
    ]  # fmt: skip


@pytest.mark.parametrize("sender", [SENDER, "CARLA@Customer.Example"])
async def test_new_mail_of_who_is_blocked_reaches_no_queue_until_unblocked(desk: Desk, sender: str) -> None:
    commands = handlers(desk)
    intake = Intake(desk.store, desk.current, inquiry=Inquiry(desk.store, blocks=desk.blocks))
    await commands["block.add"]({"address": "*@customer.example"})
    await intake.accept(letters(desk, 1, sender=sender))
    assert await commands["queue.list"]({}) == []
    (kept,) = await commands["quarantine.list"]({})
    assert "is blocked as *@customer.example" in kept["cause"]
    assert [one["hits"] for one in await commands["block.list"]({})] == [1]
    await commands["block.remove"]({"address": "*@customer.example"})
    await intake.accept(letters(desk, 2, sender=sender))
    assert len(await commands["queue.list"]({})) == 1
    assert len(await commands["quarantine.list"]({})) == 1


class SlowScanner:
    """Answers when it is told to, as one does that has much to do."""

    def __init__(self) -> None:
        self.is_asked, self.may_answer = trio.Event(), trio.Event()

    async def score(self, spam: Spam, letter: Letter) -> Score:
        self.is_asked.set()
        await self.may_answer.wait()
        return Score(0.0, "slow")


async def test_mail_that_is_looked_at_while_its_sender_is_blocked_does_not_slip_through(site: Path) -> None:
    add_spam(site, 'scanner = "rspamd+http://127.0.0.1:1"')
    with offline_desk(site) as desk:
        commands = handlers(desk)
        scanner = SlowScanner()
        intake = Intake(desk.store, desk.current, inquiry=Inquiry(desk.store, scanner=scanner, blocks=desk.blocks))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(intake.accept, letters(desk, 1))
            with trio.fail_after(10):
                await scanner.is_asked.wait()
            await commands["block.add"]({"address": SENDER})
            scanner.may_answer.set()
        assert await commands["queue.list"]({}) == []
        assert [one["hits"] for one in await commands["block.list"]({})] == [1]
        (kept,) = await commands["quarantine.list"]({})
        assert "is blocked as" in kept["cause"]


# --- the command line ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        (["block", "a@b.example"], ["block", "add", "a@b.example"]),
        (["block", "--touchpoint", "t", "a@b.example"], ["block", "add", "--touchpoint", "t", "a@b.example"]),
        (["--config", "x", "block", "*@b.example"], ["--config", "x", "block", "add", "*@b.example"]),
        (["--config=x", "block", "a@b.example"], ["--config=x", "block", "add", "a@b.example"]),
        (["block", "add", "a@b.example"], ["block", "add", "a@b.example"]),
        (["block", "list"], ["block", "list"]),
        (["block", "-h"], ["block", "-h"]),
        (["block"], ["block"]),
        (["queue", "list", "block", "x"], ["queue", "list", "block", "x"]),
        ([], []),
    ],
)
def test_block_address_is_short_for_block_add(typed: Sequence[str], meant: Sequence[str]) -> None:
    assert spelt_out(typed) == meant


def test_blocks_are_set_listed_and_lifted_by_hand(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        return main([*words, "--config", str(site)]), *capsys.readouterr()

    with offline_desk(site) as desk:
        arrive(desk.store, "<a@c>")
        arrive(desk.store, "<b@c>", role=Role.JUNK)
    assert run("block", "list") == (0, "", "nobody is blocked\n")
    assert run("block", SENDER) == (
        0,
        f"{SENDER} is now blocked; 1 message that stood in queues went into quarantine, with 1 whole conversation\n",
        "",
    )
    assert run("block", "add", SENDER, "--touchpoint", "support")[1] == f"{SENDER} is now blocked for support\n"
    code, out, _ = run("block", "list")
    assert code == 0
    assert out.splitlines()[0].split() == ["BLOCKED", "TOUCHPOINT", "SINCE", "BY", "MESSAGE", "HITS", "LAST"]
    assert "command line" in out.splitlines()[1]
    assert [one["pattern"] for one in json.loads(run("block", "list", "--json")[1])] == [SENDER, SENDER]
    code, out, err = run("unblock", SENDER)
    assert (code, err) == (0, f"{SENDER} is still blocked for support\n")
    assert "stays there until it is released" in out
    assert run("block", "remove", SENDER, "--touchpoint", "support")[0] == 0
    assert run("unblock", SENDER)[0] == 1
    assert run("block", "*@gmail.com")[0] == 1
    assert run("block", "nonsense")[0] == 2


def test_who_confirms_spam_can_block_its_sender_in_the_same_breath(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    with offline_desk(site) as desk:
        spam, _ = arrive(desk.store, "<a@c>", role=Role.JUNK)
        open_, _ = arrive(desk.store, "<b@c>")
    assert main(["quarantine", "confirm", "--block", show_id(spam), "--config", str(site)]) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"{show_id(spam)}: 1 message confirmed as spam",
        f"{SENDER} is now blocked; 1 message that stood in queues went into quarantine, with 1 whole conversation",
    ]
    with offline_desk(site) as desk:
        assert [one["message"] for one in ask(desk, "block.list")] == [show_id(spam)]
        assert [one["id"] for one in ask(desk, "quarantine.list")] == [show_id(open_)]


def test_our_own_name_on_spam_is_not_blocked_with_it(
    site: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    rules = site.with_name("rules.toml")
    rules.write_text(rules.read_text().replace('address = "reports@example.com"', f'address = "{SENDER}"'))
    with offline_desk(site) as desk:
        spam, _ = arrive(desk.store, "<a@c>", role=Role.JUNK)
    assert main(["quarantine", "confirm", "--block", show_id(spam), "--config", str(site)]) == 1
    out, err = capsys.readouterr()
    assert "confirmed as spam" in out
    assert err == f"not blocked: {SENDER} is our own (touchpoint reports); nothing was changed\n"
