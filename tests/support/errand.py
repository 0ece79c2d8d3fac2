"""What a mailbox goes through in the tests that kill the daemon at every step: told once, survived at any point.

An errand is played with a daemon that dies at one step, is started again, and goes on with the same play. What has to
be true at the end is the same whether it died or not.
"""

from __future__ import annotations

import contextlib
import imaplib
import signal
import smtplib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from gateway.errors import GatewayError
from tests.support.daemon import Site
from tests.support.ledger import Taken, balance, subject_of, taken
from tests.support.provider import Provider
from tests.support.sink import Sink
from tests.support.steps import Deadly, Forge, SteppedDaemon

LARGEST = 20_000  # bytes
PROCESSED = "Processed"
AGENT = "ana@gateway.example"


def compose(name: str, user: str, *, answers: str = "", body: str = "") -> bytes:
    """Return a letter whose subject is its name."""
    reference = f"In-Reply-To: <{_id(answers)}>\r\n" if answers else ""
    sender, to = (user, "customer@clients.example") if answers else ("customer@clients.example", user)
    return (
        f"From: Somebody <{sender}>\r\nTo: {to}\r\nSubject: {name}\r\nMessage-ID: <{_id(name)}>\r\n{reference}"
        f"Date: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n{body or f'This is {name}.'}\r\n"
    ).encode()


def _id(name: str) -> str:
    return f"{name.replace(' ', '.')}@clients.example"


class Errand:
    """A mailbox of its own with the daemon that watches it. `play` raises AssertionError with what is wrong."""

    after_fetch = "keep"
    patience = 60.0  # seconds

    def __init__(self, provider: Provider, forge: Forge, id: str, deadly: Deadly | None = None) -> None:
        self.provider, self.server = provider, provider.server
        self.id, self.deadly = id, deadly
        watch = {"poll": "5 s", "renew_idle": "5 s"}
        touchpoint = provider.touchpoint(id, tls=False, history="all", watch=watch, after_fetch=self.after_fetch)
        self.user: str = touchpoint["address"]
        site = Site([touchpoint | self.keys()], gateway={"inbound": {"max_message_size": LARGEST}})
        site.add_agent(AGENT, "secret", [id])
        self.daemon = SteppedDaemon(forge, site)
        self.made: Counter[str] = Counter()  # letters to us, by name
        self.deaths = 0

    def keys(self) -> dict[str, Any]:
        """What else the touchpoint is given."""
        return {}

    @property
    def stages(self) -> Sequence[Callable[[], None]]:
        raise NotImplementedError

    def play(self) -> None:
        try:
            self.prepare()
            self.daemon.deadly = self.deadly
            self.daemon.launch()
            for stage in self.stages:
                stage()
            self.end()
            self.check()
        except (AssertionError, imaplib.IMAP4.error, OSError) as error:
            raise AssertionError(
                f"{self.id}, {self.deadly or 'no death'}: {error}\n{self.daemon.log_tail()}"
            ) from error
        finally:
            self.close()

    def close(self) -> None:
        self.daemon.close()

    # --- for stages --------------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        """Lay out the mailbox before the daemon comes."""

    def put(self, name: str, folder: str = "INBOX", times: int = 1, at: datetime | None = None, body: str = "") -> None:
        """Put a letter into the mailbox, byte for byte, so often."""
        for _ in range(times):
            self.server.append(self.user, compose(name, self.user, body=body), folder, at or datetime.now(UTC))
        self.made[name] += times

    def deliver(self, name: str) -> None:
        self.server.deliver(self.user, compose(name, self.user))
        self.made[name] += 1

    def until(self, check: Callable[[], Any], what: str) -> None:
        """Wait until it is so; start the daemon again when it has died its death."""
        deadline = time.monotonic() + self.patience
        while True:
            self.revive()
            with contextlib.suppress(OSError, GatewayError, smtplib.SMTPException):
                if check():
                    return
            if time.monotonic() > deadline:
                raise AssertionError(f"waited in vain: {what}; {self.show()}")
            time.sleep(0.03)

    def show(self) -> str:
        """Say what a wait may have been in vain for."""
        state = self.daemon.touchpoint_status(self.id)["state"]
        return f"missing {dict(self.made - self.known())}, {state}, in the INBOX {self.lying('INBOX')}"

    def revive(self) -> None:
        if self.daemon.is_running:
            return
        code = self.daemon.wait_end()
        assert code == -signal.SIGKILL, f"it ended with {code}"
        assert self.deadly, "it was killed without an order"
        assert not self.deaths, "it died twice"
        self.deaths += 1
        self.daemon.launch()

    def known(self) -> Counter[str]:
        """Return the messages that the running daemon has, by name; their Message-IDs tell."""
        found: Counter[str] = Counter()
        for conversation in self.daemon.conversations():
            found.update(conversation["message_ids"])
        return Counter({name: found[f"<{_id(name)}>"] for name in self.made})

    def has_all(self) -> bool:
        return not self.made - self.known()

    def state_of(self, name: str) -> str:
        """Return the state of the conversation that a letter belongs to, "" where there is none."""
        id = f"<{_id(name)}>"
        return next((one["state"] for one in self.daemon.conversations() if id in one["message_ids"]), "")

    def quarantined(self) -> dict[str, str]:
        """Return the ids of what waits in quarantine, by name."""
        return {one["subject"]: one["id"] for one in self.daemon.ask("quarantine.list")}

    def lying(self, folder: str) -> list[str]:
        return sorted(subject_of(raw) for raw in self.server.messages(self.user, folder))

    # --- the end -----------------------------------------------------------------------------------------------------

    def is_complete(self) -> bool:
        """Is everything as it is to be at the end? Asked of a running daemon."""
        return self.has_all() and self.daemon.touchpoint_status(self.id)["state"] == "watching"

    def end(self) -> None:
        """Stop the daemon when all is done. It may die of that; then it has to come back to the same."""
        self.until(self.is_complete, "all is done")
        code = self.daemon.stop()
        if code == -signal.SIGKILL:
            self.revive()
            self.until(self.is_complete, "all is done, again")
            code = self.daemon.stop()
        assert code == 0, f"it ended with {code}"

    def check(self) -> None:
        """Compare the store with the mailbox."""
        rows = taken(self.daemon, self.id)
        folders = {folder: Counter(self.lying(folder)) for folder in self.folders}
        queued = sum((lying for folder, lying in folders.items() if folder != "Junk"), Counter[str]())
        inbound = [row for row in rows if row.origin != "sent"]
        found = balance(inbound, self.made, queued, folders["Junk"], Counter())
        assert not found.wrong, "\n".join(found.wrong)
        assert found.stayed == sum(self.made.values()), f"{found}; at the provider {folders}"
        self.check_rows(rows)
        self.check_places()
        self.check_bytes()

    @property
    def folders(self) -> Sequence[str]:
        return ("INBOX", "Junk", *([PROCESSED] if self.after_fetch.startswith("move") else []))

    def check_rows(self, rows: Sequence[Taken]) -> None:
        """What else is to be true of the messages."""
        assert [row for row in rows if row.placeholder] == []

    def check_places(self) -> None:
        """Each message in a watched folder is known to lie there, and no two of ours are one of theirs."""
        with contextlib.closing(self.daemon.database()) as database:
            for folder in ("INBOX", "Junk"):
                with self.server.session(self.user, folder) as imap:
                    there = {int(uid) for uid in imap.uid("SEARCH", "ALL")[1][0].split()}
                known = dict(
                    database.execute(
                        "SELECT uid, message FROM location JOIN folder USING (touchpoint, folder, uidvalidity)"
                        " WHERE touchpoint = ? AND folder = ?",
                        (self.id, folder),
                    ).fetchall()
                )
                assert there <= set(known), f"{folder}: {sorted(there - set(known))} are there and not known"
                ours = [known[uid] for uid in there]
                assert len(ours) == len(set(ours)), f"{folder}: one message of ours lies at two UIDs: {known}"

    def check_bytes(self) -> None:
        """What is stored is what the provider has, byte for byte; nothing half written is left over."""
        with contextlib.closing(self.daemon.database()) as database:
            stored = Counter(
                b"".join(
                    part
                    for (part,) in database.execute(
                        "SELECT bytes FROM chunk WHERE id BETWEEN ? AND ? ORDER BY id", (id << 16, (id << 16) + 65_535)
                    )
                )
                for (id,) in database.execute("SELECT id FROM message WHERE placeholder IS NULL")
            )
            (orphans,) = database.execute(
                "SELECT count(*) FROM chunk WHERE NOT EXISTS (SELECT 1 FROM message WHERE message.id = chunk.id >> 16)"
                " AND NOT EXISTS (SELECT 1 FROM outbox WHERE outbox.id = chunk.id >> 16)"
            ).fetchone()
        there = Counter(raw for folder in (*self.folders, "Sent") for raw in self.server.messages(self.user, folder))
        assert not stored - there, f"stored and not like any message there: {list(stored - there)[:2]}"
        assert not orphans, f"{orphans} chunks of nobody"


class EverythingErrand(Errand):
    """A backlog, new mail in IDLE, twins, some too large, Junk, Sent, two ways out of Junk, an answer through us, a
    change of UIDVALIDITY; what is fetched is marked as seen.
    """

    after_fetch = "seen"
    large, junk, spam, reply, answer = "the large one", "junk one", "junk two", "Re: letter 1", "Re: letter 2"

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.sink = Sink()
        super().__init__(*arguments, **options)

    def keys(self) -> dict[str, Any]:
        return {"direction": "both", "smtp": f"smtp+insecure://127.0.0.1:{self.sink.port}"}

    def close(self) -> None:
        super().close()
        self.sink.close()

    def prepare(self) -> None:
        at = datetime.now(UTC) - timedelta(hours=1)
        for number in (1, 2, 3):
            self.put(f"letter {number}", at=at + timedelta(seconds=number))
        self.put("twins", times=2, at=at)
        self.put(self.large, at=at, times=2, body=("x" * 70 + "\r\n") * (LARGEST // 60))
        self.put("one in parts", at=at, body=("y" * 70 + "\r\n") * (LARGEST // 80))
        self.put(self.junk, "Junk", at=at)
        self.put(self.spam, "Junk", at=at)
        self.server.append(self.user, compose("of no interest", self.user), "Sent", at)

    @property
    def stages(self) -> Sequence[Callable[[], None]]:
        return (
            *(self.backlog, self.new, self.late_twin, self.answer_elsewhere, self.out_of_junk, self.release),
            *(self.answer_through_us, self.renumber),
        )

    def backlog(self) -> None:
        self.until(lambda: self.has_all() and len(self.quarantined()) == 2, "the backlog")

    def new(self) -> None:
        self.until(lambda: self.daemon.touchpoint_status(self.id)["state"] == "watching", "it waits for mail")
        self.deliver("a new one")
        self.until(self.has_all, "what came while it waited")

    def late_twin(self) -> None:
        at = datetime.now(UTC)
        for _ in range(2):
            self.put("late twins", at=at)
            self.until(self.has_all, "each of the twins")

    def answer_elsewhere(self) -> None:
        self.server.append(self.user, compose(self.reply, self.user, answers="letter 1"), "Sent", datetime.now(UTC))
        self.until(lambda: self.state_of("letter 1") == "answered", "the answer from elsewhere")

    def out_of_junk(self) -> None:
        """A colleague drags it into the INBOX."""
        with self.server.session(self.user, "Junk", readonly=False) as imap:
            (uid,) = imap.uid("SEARCH", "SUBJECT", f'"{self.junk}"')[1][0].split()
            assert imap.uid("MOVE", uid.decode(), "INBOX")[0] == "OK"
        self.until(lambda: self.state_of(self.junk) == "open", "it is no junk any more")

    def release(self) -> None:
        def is_released() -> bool:
            if id := self.quarantined().get(self.spam):
                self.daemon.ask("quarantine.release", id=id)
            return self.spam in self.lying("INBOX") and self.state_of(self.spam) == "open"

        self.until(is_released, "released, and moved at the provider")

    def answer_through_us(self) -> None:
        """An agent replies. Killed between dot and record it is uncertain whether he did, and nothing is marked."""
        raw = compose(self.answer, self.user, answers="letter 2")

        def is_sent() -> bool:
            if not self.daemon.outbox():
                with self.daemon.submit(AGENT, "secret") as session:
                    session.sendmail(self.user, ["customer@clients.example"], raw)
            if self.deaths:
                self.daemon.ask("outbox.retry")  # cut before the dot, it is tried again in its own time
            return self.fates() <= {"delivered", "uncertain"}

        self.until(is_sent, "the answer is sent")

    def fates(self) -> set[str]:
        return {recipient["state"] for message in self.daemon.outbox() for recipient in message["recipients"]}

    def renumber(self) -> None:
        self.until(self.is_marked, "what was fetched is marked as seen, and what was answered as answered")
        self.server.renumber(self.user)
        self.deliver("after the change")
        self.until(self.has_all, "what came after the change")

    def show(self) -> str:
        states = {name: self.state_of(name) for name in ("letter 1", "letter 2", self.junk, self.spam)}
        return f"{super().show()}, {states}, sent {self.fates()}, quarantine {self.quarantined()}, {self.marks()}"

    def marks(self) -> list[tuple[str, bytes]]:
        """Return (name, what FETCH says of it) of each message in the INBOX; twins are two."""
        with self.server.session(self.user, "INBOX") as imap:
            items = imap.uid("FETCH", "1:*", "(FLAGS BODY.PEEK[HEADER.FIELDS (SUBJECT)])")[1]
        return [(subject_of(item[1]), item[0]) for item in items if isinstance(item, tuple)]

    def is_marked(self) -> bool:
        marks = self.marks()
        # What stands as a placeholder was not fetched; what was fetched from Junk was not in a folder of ours
        unseen = {name for name, flags in marks if rb"\Seen" not in flags} - {self.large, self.junk, self.spam}
        return not unseen and (self.fates() == {"uncertain"} or rb"\Answered" in dict(marks)["letter 2"])

    def is_complete(self) -> bool:
        return (
            super().is_complete()
            and not self.quarantined()
            and self.is_marked()
            and {self.state_of("letter 1"), self.state_of("letter 2")} == {"answered"}
        )

    def check_rows(self, rows: Sequence[Taken]) -> None:
        by_name = Counter(row.subject for row in rows)
        assert by_name[self.reply] == 1, f"the answer is there {by_name[self.reply]} times"
        assert [row.origin for row in rows if row.subject == self.reply] == ["sent"]
        assert "of no interest" not in by_name
        assert [(row.subject, row.placeholder) for row in rows if row.placeholder] == [(self.large, "headed")] * 2
        assert [row.subject for row in rows if row.quarantine] == []


class MovingErrand(Errand):
    """What was fetched is moved out of the INBOX: a backlog with twins, then new mail in IDLE."""

    after_fetch = f"move:{PROCESSED}"

    def prepare(self) -> None:
        self.server.create_folder(self.user, PROCESSED)
        at = datetime.now(UTC) - timedelta(hours=1)
        for number in (1, 2, 3):
            self.put(f"letter {number}", at=at + timedelta(seconds=number))
        self.put("twins", times=2, at=at)

    @property
    def stages(self) -> Sequence[Callable[[], None]]:
        return self.backlog, self.new

    def backlog(self) -> None:
        self.until(lambda: self.has_all() and not self.lying("INBOX"), "the backlog is taken and moved")

    def new(self) -> None:
        self.deliver("a new one")
        self.until(lambda: self.has_all() and not self.lying("INBOX"), "what came is taken and moved")

    def is_complete(self) -> bool:
        return super().is_complete() and not self.lying("INBOX")
