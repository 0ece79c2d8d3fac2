"""Reading a mailbox at two servers that have nothing in common but the protocol: nothing is made for one of them."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.message import EmailMessage
from typing import Any

import pytest

from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.daemon import Daemon, Site
from tests.support.dovecot import Dovecot
from tests.support.ledger import Taken, subject_of, taken
from tests.support.letters import letter, message_id
from tests.support.provider import CUSTOMER, Provider
from tests.support.sink import Sink
from tests.support.steps import Forge, SteppedDaemon
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=[Dovecot, Cyrus], ids=["dovecot", "cyrus"])
def stage(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Provider]:
    provider = Provider(authority, request.param)
    try:
        yield provider
    finally:
        provider.close()


@dataclass
class Post:
    """A mailbox at the server, and the daemon that watches it."""

    stage: Provider
    id: str
    user: str
    site: Site
    daemon: Daemon

    @property
    def server(self) -> Dovecot | Cyrus:
        return self.stage.server

    def put(self, number: int, subject: str = "letter", folder: str = "INBOX", at: datetime | None = None) -> bytes:
        raw = letter(number, subject)
        self.server.append(self.user, raw, folder, at or datetime.now(UTC))
        return raw

    def start(self) -> None:
        self.daemon.start()
        self.wait_watching()

    def wait_watching(self) -> None:
        self.wait(lambda: self.daemon.touchpoint_status(self.id)["state"] == "watching", "it watches")

    def wait(self, check: Callable[[], Any], what: str) -> Any:
        return wait_until(check, what, state=self.daemon.log_tail)

    def known(self) -> Counter[str]:
        """Return how many messages we have, by the subject of their conversation."""
        found: Counter[str] = Counter()
        for one in self.daemon.conversations():
            found[one["subject"]] += len(one["message_ids"])
        return found

    def wait_known(self, *subjects: str) -> None:
        """Wait until we have these, so often each."""
        wanted = Counter(subjects)
        self.wait(lambda: not wanted - self.known(), f"{wanted}")

    def wait_a_round(self) -> None:
        """Return when all folders have been looked at once more: a letter into Junk is seen only by a round."""
        self.put(0, name := f"probe {len(self.known())}", "Junk")
        self.wait_known(f"{name} 0")

    def state_of(self, subject: str) -> str:
        return next((one["state"] for one in self.daemon.conversations() if one["subject"] == subject), "")

    def rows(self) -> list[Taken]:
        """Stop the daemon; return what it has, without what `wait_a_round` has put there."""
        assert self.daemon.stop() == 0
        return [row for row in taken(self.daemon, self.id) if not row.subject.startswith("probe")]

    def subjects(self, folder: str = "INBOX") -> Counter[str]:
        found = (subject_of(raw) for raw in self.server.messages(self.user, folder))
        return Counter(subject for subject in found if not subject.startswith("probe"))

    def move(self, subject: str, source: str, target: str, *, count: int = 1) -> None:
        """As a colleague does, in another client."""
        with self.server.session(self.user, source, readonly=False) as imap:
            uids = imap.uid("SEARCH", "SUBJECT", f'"{subject}"')[1][0].split()[:count]
            assert uids
            assert imap.uid("MOVE", b",".join(uids).decode(), f'"{target}"')[0] == "OK"


_numbers = itertools.count(1)


@pytest.fixture
def post(stage: Provider, forge: Forge) -> Iterator[Callable[..., Post]]:
    made: list[Post] = []

    def make(**keys: Any) -> Post:
        """Return a mailbox of its own with its daemon, not started. `keys`: of the touchpoint."""
        id = f"post{next(_numbers)}"
        touchpoint = stage.touchpoint(id, history="all", watch={"poll": "5 s", "renew_idle": "5 s"}) | keys
        site = Site([touchpoint])
        made.append(Post(stage, id, touchpoint["address"], site, SteppedDaemon(forge, site, chores=0.2)))
        return made[-1]

    try:
        yield make
    finally:
        for one in made:
            one.daemon.close()


# --- history ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("history", "expected"),
    [("new", set()), ("30 days", {3, 4}), ("all", {0, 1, 2, 3, 4})],
    ids=["new", "30-days", "all"],
)
def test_history_begins_where_it_is_said(post: Callable[..., Post], history: str, expected: set[int]) -> None:
    here = post(history=history)
    for number, days in enumerate((400, 90, 31, 29, 1)):
        here.put(number, "old", at=datetime.now(UTC) - timedelta(days=days))
    here.start()
    here.put(9, "new")
    here.wait_known("new 9", *(f"old {number}" for number in expected))
    here.wait_a_round()
    assert Counter(row.subject for row in here.rows()) == Counter(["new 9", *(f"old {n}" for n in expected)])


def test_new_mail_is_seen_at_once(post: Callable[..., Post]) -> None:
    here = post(watch={"poll": "10 min", "renew_idle": "10 min"})
    here.start()
    for number in range(5):
        here.server.deliver(here.user, letter(number, "hurry"))
        wait_until(
            lambda number=number: here.known()[f"hurry {number}"],  # type: ignore[misc]  # mypy and lambdas
            "IDLE tells",
            timeout=5,
            every=0.02,
            state=here.daemon.log_tail,
        )


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_up", [True, False], ids=["while-it-watches", "while-it-is-away"])
def test_a_change_of_uidvalidity_brings_nothing_again_and_loses_nothing(post: Callable[..., Post], is_up: bool) -> None:
    here = post()
    at = datetime.now(UTC) - timedelta(days=1)
    for number in range(20):
        here.put(number, at=at + timedelta(minutes=number))
    for _ in range(2):
        here.put(20, "twin", at=at)
    for number in range(3):
        here.put(number, "spam", "Junk", at=at)
    letters = Counter([f"letter {number}" for number in range(20)])
    spam = Counter([f"spam {number}" for number in range(3)])
    here.start()
    here.wait_known(*letters, *spam, "twin 20", "twin 20")
    if not is_up:
        here.daemon.stop()
    arrived = len(here.daemon.events("arrived"))
    here.server.renumber(here.user, ("INBOX", "Junk", "Sent"))
    here.put(99, "after")
    if not is_up:
        here.start()
    here.wait_known("after 99")
    here.wait_a_round()
    rows = here.rows()
    assert Counter(row.subject for row in rows) == letters + spam + Counter({"twin 20": 2, "after 99": 1})
    again = [event for event in here.daemon.events("arrived")[arrived:]]
    assert len(again) == 2, "no body was fetched again: only the new letter and the probe"


def test_twins_are_both_kept_and_different_mails_with_one_message_id_too(post: Callable[..., Post]) -> None:
    here = post()
    at = datetime.now(UTC)
    here.put(1, "twin", at=at)
    here.start()
    here.wait_known("twin 1")
    here.put(1, "twin", at=at)
    here.wait_known("twin 1", "twin 1")
    with here.server.session(here.user, "INBOX", readonly=False) as imap:
        imap.uid("COPY", "1", "INBOX")  # a third, and a colleague's doing
    here.wait_known(*["twin 1"] * 3)
    for word in (b"one", b"another"):
        here.server.deliver(here.user, letter(2, "same").replace(b"This is", word + b" is"))
    here.wait_known("same 2", "same 2")
    here.wait_a_round()
    assert Counter(row.subject for row in here.rows()) == {"twin 1": 3, "same 2": 2}


def test_what_a_colleague_moves_out_and_back_is_no_second_message(post: Callable[..., Post]) -> None:
    here = post()
    here.server.create_folder(here.user, "Elsewhere")
    for number in range(3):
        here.put(number)
    at = datetime.now(UTC)
    for _ in range(2):
        here.put(7, "twin", at=at)
    here.start()
    everything = ["letter 0", "letter 1", "letter 2", "twin 7", "twin 7"]
    here.wait_known(*everything)
    here.move("letter 1", "INBOX", "Elsewhere")
    here.move("twin 7", "INBOX", "Elsewhere", count=2)
    here.wait_a_round()
    here.move("letter 1", "Elsewhere", "INBOX")
    here.move("twin 7", "Elsewhere", "INBOX")
    here.wait_a_round()
    here.move("twin 7", "Elsewhere", "INBOX")
    here.put(8, "last")
    here.wait_known("last 8")
    here.wait_a_round()
    assert Counter(row.subject for row in here.rows()) == Counter([*everything, "last 8"])


def test_a_folder_that_is_renamed_emptied_or_made_anew_neither_loses_nor_repeats(post: Callable[..., Post]) -> None:
    here = post(folders=["INBOX", "Second"])
    here.server.create_folder(here.user, "Second")
    for number in range(3):
        here.put(number, "kept", "Second")
    here.start()
    kept = [f"kept {number}" for number in range(3)]
    here.wait_known(*kept)
    with here.server.session(here.user) as imap:
        imap.rename("Second", "Away")
        here.wait_a_round()
        here.put(1, "meanwhile", "Away")
        imap.rename("Away", "Second")
    here.wait_known(*kept, "meanwhile 1")
    with here.server.session(here.user, "Second", readonly=False) as imap:
        imap.store("1:*", "+FLAGS", r"(\Deleted)")
        imap.expunge()
    here.wait_a_round()
    here.put(1, "refilled", "Second")
    here.wait_known("refilled 1")
    with here.server.session(here.user) as imap:
        assert imap.delete("Second")[0] == "OK"
    here.wait_a_round()
    here.server.create_folder(here.user, "Second")
    here.put(1, "anew", "Second")
    here.wait_known("anew 1")
    here.wait_a_round()
    assert Counter(row.subject for row in here.rows()) == Counter([*kept, "meanwhile 1", "refilled 1", "anew 1"])


def test_a_name_beyond_ascii_is_watched_and_moved_to(post: Callable[..., Post]) -> None:
    here = post(folders=["INBOX", "Büro & Café 东"], after_fetch="move:Erledigt ✓")
    for name in ("B&APw-ro &- Caf&AOk- &Thw-", "Erledigt &JxM-"):  # modified UTF-7
        here.server.create_folder(here.user, name)
    here.server.append(here.user, letter(1, "wide"), "B&APw-ro &- Caf&AOk- &Thw-", datetime.now(UTC))
    here.put(2, "narrow")
    here.start()
    here.wait_known("wide 1", "narrow 2")
    here.wait(lambda: here.subjects("Erledigt &JxM-") == {"wide 1": 1, "narrow 2": 1}, "both are moved")
    assert Counter(row.subject for row in here.rows()) == {"wide 1": 1, "narrow 2": 1}


def test_large_and_odd_messages_are_stored_byte_for_byte(post: Callable[..., Post]) -> None:
    here = post()
    odd = [
        letter(1, "large", body=("0123456789" * 7 + "\r\n") * 60_000),  # comes in parts
        letter(2, "eight bit").replace(b"From: Customer", "From: Kündin".encode("latin-1")),
        letter(3, "empty").partition(b"\r\n\r\n")[0] + b"\r\n\r\n",
    ]
    for raw in odd:
        here.server.append(here.user, raw)
    here.start()
    here.wait(lambda: len(here.daemon.conversations()) == 3, "all three")
    assert here.daemon.stop() == 0
    with contextlib.closing(here.daemon.database()) as database:
        stored = [
            b"".join(
                part for (part,) in database.execute("SELECT bytes FROM chunk WHERE id >> 16 = ? ORDER BY id", (id,))
            )
            for (id,) in database.execute("SELECT id FROM message ORDER BY size").fetchall()
        ]
    assert sorted(stored) == sorted(here.server.messages(here.user))


# --- Junk ------------------------------------------------------------------------------------------------------------


def test_junk_is_quarantined_and_comes_out_by_either_hand_as_the_same_message(post: Callable[..., Post]) -> None:
    here = post()
    for number in range(3):
        here.put(number, "spam", "Junk")
    here.start()
    here.wait(lambda: len(here.daemon.ask("quarantine.list")) == 3, "all are in quarantine")
    assert {one["state"] for one in here.daemon.conversations()} == {"quarantined"}
    ids = {one["subject"]: one["id"] for one in here.daemon.ask("quarantine.list")}
    here.daemon.ask("quarantine.release", id=ids["spam 0"])
    here.wait(lambda: here.subjects() == {"spam 0": 1}, "moved at the provider")
    here.move("spam 1", "Junk", "INBOX")
    here.wait(lambda: here.state_of("spam 1") == "open", "let go")
    here.wait_a_round()
    rows = here.rows()
    assert Counter(row.subject for row in rows) == {"spam 0": 1, "spam 1": 1, "spam 2": 1}
    assert {row.subject for row in rows if row.is_in_a_queue} == {"spam 0", "spam 1"}
    assert here.subjects("Junk") == {"spam 2": 1}


def test_what_is_confirmed_goes_into_junk_at_the_provider(post: Callable[..., Post]) -> None:
    here = post()
    rule = {"name": "no bargains", "if": {"subject": "*bargain*"}, "then": {"quarantine": True}}
    here.site.rules.append(rule)
    here.daemon.write_config()
    here.put(1, "bargain")
    here.start()
    (held,) = here.wait(lambda: here.daemon.ask("quarantine.list"), "it is held")
    here.daemon.ask("quarantine.confirm", id=held["id"])
    here.wait(lambda: here.subjects("Junk") == {"bargain 1": 1}, "moved at the provider")
    here.wait_a_round()
    assert [row.subject for row in here.rows()] == ["bargain 1"]
    assert not here.subjects()


@pytest.mark.parametrize("after_fetch", ["keep", "move:Processed"])
def test_what_a_blocked_sender_has_written_and_writes_lies_in_junk_at_the_provider(
    post: Callable[..., Post], after_fetch: str
) -> None:
    here = post(after_fetch=after_fetch)
    here.put(1, "before")
    here.start()
    here.wait_known("before 1")
    if after_fetch != "keep":
        here.wait(lambda: not here.subjects(), "what came before is put away")
    blocked = here.daemon.ask("block.add", address=CUSTOMER)
    assert len(blocked["conversations"]) == 1
    here.put(2, "after")
    moved = {"after 2": 1} if after_fetch != "keep" else {"before 1": 1, "after 2": 1}
    here.wait(lambda: here.subjects("Junk") == moved, "moved at the provider")
    assert not here.subjects()
    assert here.daemon.stop() == 0
    here.put(3, "restarted")
    here.start()
    here.wait(lambda: here.subjects("Junk") == moved | {"restarted 3": 1}, "blocked also by who starts afterwards")
    here.wait_a_round()
    assert {one["state"] for one in here.daemon.conversations() if "probe" not in one["subject"]} == {"quarantined"}
    assert [one["hits"] for one in here.daemon.ask("block.list")] >= [2]
    here.daemon.ask("block.remove", address=CUSTOMER)
    here.put(4, "forgiven")
    here.wait(lambda: here.state_of("forgiven 4") == "open", "let in")


# --- after_fetch -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("after_fetch", "expected"), [("keep", False), ("seen", True)])
def test_what_is_fetched_is_marked_as_seen_or_not(post: Callable[..., Post], after_fetch: str, expected: bool) -> None:
    here = post(after_fetch=after_fetch)
    here.put(1)
    here.start()
    here.server.deliver(here.user, letter(2, "letter"))
    here.wait_known("letter 1", "letter 2")
    if expected:
        here.wait(lambda: all(rb"\Seen" in flags for flags in here.server.flags(here.user)), "both are marked")
    here.wait_a_round()
    assert [rb"\Seen" in flags for flags in here.server.flags(here.user)] == [expected] * 2


def test_what_is_moved_away_is_moved_once_and_brought_back_it_is_no_second_message(post: Callable[..., Post]) -> None:
    here = post(after_fetch="move:Done")
    here.server.create_folder(here.user, "Done")
    for number in range(5):
        here.put(number)
    here.start()
    letters = Counter(f"letter {number}" for number in range(5))
    here.wait(lambda: here.subjects("Done") == letters, "all are moved")
    here.move("letter 3", "Done", "INBOX")
    here.put(5)
    letters["letter 5"] += 1
    here.wait_known(*letters)
    here.wait(lambda: here.subjects("Done")["letter 5"] == 1, "the new one is moved")  # two folders are two looks
    here.wait_a_round()
    assert here.subjects() + here.subjects("Done") == letters
    assert Counter(row.subject for row in here.rows()) == letters


# --- Sent ------------------------------------------------------------------------------------------------------------


def reply(to: bytes, sender: str, name: str) -> bytes:
    answer = EmailMessage()
    answer["From"], answer["To"], answer["Subject"] = sender, CUSTOMER, name
    answer["In-Reply-To"] = message_id(to)
    answer["Message-ID"] = f"<{name.replace(' ', '.')}@elsewhere.example>"
    answer["Date"] = "Mon, 23 Nov 2026 11:00:00 +0000"
    answer.set_content("Yes.\n")
    return answer.as_bytes().replace(b"\n", b"\r\n")


def test_an_answer_from_elsewhere_stands_in_its_conversation_and_nothing_else_of_sent(
    post: Callable[..., Post],
) -> None:
    here = post()
    question = here.put(1, "question", at=datetime.now(UTC) - timedelta(minutes=1))  # nobody answers within a second
    here.put(1, "a private thing", "Sent")
    here.start()
    here.wait_known("question 1")
    here.server.append(here.user, reply(question, here.user, "an answer"), "Sent", datetime.now(UTC))
    here.wait(lambda: here.state_of("question 1") == "answered", "answered")
    here.server.renumber(here.user, ("INBOX", "Junk", "Sent"))
    here.wait_a_round()
    rows = here.rows()
    assert Counter((row.subject, row.origin) for row in rows) == {("question 1", "queue"): 1, ("an answer", "sent"): 1}


def test_an_answer_through_us_marks_the_question_at_the_provider(post: Callable[..., Post]) -> None:
    sink = Sink()
    try:
        here = post(direction="both", smtp=f"smtp+insecure://127.0.0.1:{sink.port}")
        here.site.add_agent("ana@gateway.example", "secret", [here.id])
        here.daemon.write_config()
        question = here.put(1, "question")
        here.put(2, "another")
        here.start()
        here.wait_known("question 1", "another 2")
        with here.daemon.submit("ana@gateway.example", "secret") as session:
            session.sendmail(here.user, [CUSTOMER], reply(question, here.user, "our answer"))
        here.wait(lambda: any(rb"\Answered" in flags for flags in here.server.flags(here.user)), "marked")
        here.wait_a_round()
        assert [rb"\Answered" in flags for flags in here.server.flags(here.user)] == [True, False]
        assert here.state_of("question 1") == "answered"
    finally:
        sink.close()


# --- reconciliation --------------------------------------------------------------------------------------------------


def test_reconciliation_counts_what_is_there_and_mends_what_is_missing(post: Callable[..., Post]) -> None:
    here = post(history="30 days")
    here.put(0, "ancient", at=datetime.now(UTC) - timedelta(days=300))
    for number in range(1, 6):
        here.put(number)
    here.start()
    here.wait_known(*(f"letter {number}" for number in range(1, 6)))
    assert here.daemon.stop() == 0
    with contextlib.closing(here.daemon.database()) as database, database:  # as if two had never been seen
        lost = [id for (id,) in database.execute("SELECT id FROM message WHERE subject IN ('letter 2', 'letter 3')")]
        for id in lost:
            database.execute("DELETE FROM location WHERE message = ?", (id,))
            database.execute("DELETE FROM message WHERE id = ?", (id,))
            database.execute("DELETE FROM chunk WHERE id >> 16 = ?", (id,))
            database.execute("DELETE FROM conversation WHERE id NOT IN (SELECT conversation FROM message)")
    here.start()
    here.wait_known(*(f"letter {number}" for number in range(1, 6)))
    with here.server.session(here.user, "INBOX", readonly=False) as imap:
        (uid,) = imap.uid("SEARCH", "SUBJECT", '"letter 5"')[1][0].split()
        imap.uid("STORE", uid.decode(), "+FLAGS", r"(\Deleted)")
        imap.uid("EXPUNGE", uid.decode())
    found = {one["folder"]: one for one in here.daemon.ask("reconcile")}
    assert set(found) == {"INBOX", "Junk", "Sent"}
    inbox = found["INBOX"]
    assert inbox["error"] is None
    assert inbox["at_provider"] == 5
    assert inbox["known"] + inbox["gaps"] == 4
    assert inbox["older"] == 1
    assert inbox["unfetched"] == 0
    rows = here.rows()
    assert Counter(row.subject for row in rows) == Counter(f"letter {number}" for number in range(1, 6))
