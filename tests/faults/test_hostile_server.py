"""One hostile provider among ten: the daemon lives, the nine keep their latency, and nothing of the tenth is lost."""

from __future__ import annotations

import contextlib
import imaplib
import pprint
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.support import hurried
from tests.support.authority import Authority, Pair
from tests.support.daemon import Daemon, Site
from tests.support.hostile import CAPABILITIES, HostileServer
from tests.support.hostile_story import LARGEST, RATE, Latencies, Line, Story, strange_messages
from tests.support.imap_faults import BYE, TRIALS, answers, answers_after, at
from tests.support.imap_model import Folder, Message
from tests.support.letters import letter, message_id, repeated
from tests.support.onlooker import Correspondents, Onlooker
from tests.support.provider import Provider
from tests.support.waiting import wait_until

HEALTHY: Final = 9
LATEST: Final = 6.0  # seconds: no healthy letter may take longer, however slow the machine
CAPABILITY_GONE: Final = re.compile("no (IDLE|ESEARCH)$|HIGHESTMODSEQ")  # of what is asked in those trials
MOST_MEMORY: Final = 100.0  # MB that hostility may cost beside what the daemon had before


# --- the server in its honest mode -----------------------------------------------------------------------------------


@pytest.fixture(params=["hostile-server", "dovecot"])
def imap(request: pytest.FixtureRequest, authority: Authority) -> Iterator[tuple[imaplib.IMAP4, Callable[..., object]]]:
    """A logged-in client of either server, and what delivers to it."""
    if request.param == "dovecot":
        provider: Provider = request.getfixturevalue("shared_provider")
        login = "contract@support.example"
        provider.dovecot.set_password(login, "secret")
        with imaplib.IMAP4("127.0.0.1", provider.dovecot.imap_port) as client:
            client.login(login, "secret")
            yield client, lambda *raws: provider.dovecot.deliver(login, *raws)
        return
    server = request.getfixturevalue("make_server")("contract")
    with imaplib.IMAP4("127.0.0.1", server.port) as client:
        client.login(server.login, server.password)
        yield client, server.deliver
    assert server.misunderstood == []


def said(answer: tuple[str, list[Any]]) -> bytes:
    """Return what an OK came with, as one text."""
    status, data = answer
    assert status == "OK", data
    return b" ".join(b"\r\n".join(piece) if isinstance(piece, tuple) else piece for piece in data if piece is not None)


def told(response: tuple[str, list[Any]]) -> bytes:
    """Return what came beside an answer."""
    return b" ".join(piece for piece in response[1] if piece is not None)


def test_the_hostile_server_in_its_honest_mode_answers_as_dovecot_does(
    imap: tuple[imaplib.IMAP4, Callable[..., object]],
) -> None:
    client, deliver = imap
    first, second, third = (letter(number, "contract", body="x" * number) for number in (1, 2, 300))
    deliver(first, second)
    assert re.search(rb'\(.*\\Junk.*\) "?[./]"? "?Junk"?', said(client.list()))
    assert re.search(rb'"?INBOX"? \(MESSAGES 2 UIDNEXT 3 UIDVALIDITY [1-9]\d*\)', said(
        client.status("INBOX", "(MESSAGES UIDNEXT UIDVALIDITY)")
    ))  # fmt: skip
    assert client.select("INBOX", readonly=True) == ("OK", [b"2"])
    assert int(told(client.response("UIDVALIDITY"))) > 0
    assert told(client.response("UIDNEXT")) == b"3"
    assert said(client.uid("SEARCH", "UID 2:*")) == b"2"
    assert said(client.uid("SEARCH", "UID 9:*")) == b"2"  # the last one, whatever its number
    assert said(client.uid("SEARCH", "SINCE", "1-Jan-2020")) == b"1 2"
    whole = said(client.uid("FETCH", "1:*", "(UID RFC822.SIZE INTERNALDATE BODY.PEEK[])"))
    for raw in (first, second):
        assert raw[raw.index(b"Subject") :] in whole  # Dovecot's LMTP has put trace fields before it
    assert whole.count(b"RFC822.SIZE") == 2
    fields = said(client.uid("FETCH", "2", "(UID BODY.PEEK[HEADER.FIELDS (MESSAGE-ID DATE)])"))
    assert b"Message-ID: <contract.2@clients.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n\r\n" in fields
    part = said(client.uid("FETCH", "2", "(UID BODY.PEEK[]<3.5>)"))
    assert re.search(rb"UID 2 BODY\[\]<3> \{5\}\r\n.{5} \)", part, re.DOTALL)
    assert said(client.uid("FETCH", "2", "(UID BODY.PEEK[]<999999.5>)")).endswith((b'BODY[]<999999> "")', b"{0}\r\n )"))
    assert re.search(
        rb'ENVELOPE \("Mon, 23 Nov 2026 10:00:00 \+0000" "contract 2" \(\("Customer 2" NIL "customer" "clients',
        said(client.uid("FETCH", "2", "(UID ENVELOPE)")),
    )
    client.uid("STORE", "2", "+FLAGS.SILENT", "(\\Seen)")  # opened with EXAMINE: in vain, with NO or without
    assert b"Seen" not in said(client.uid("FETCH", "2", "(UID FLAGS)"))
    assert client.select("INBOX") == ("OK", [b"2"])
    said(client.uid("STORE", "2", "+FLAGS.SILENT", "(\\Answered)"))
    assert re.search(rb"\(UID 2 FLAGS \(.*\\Answered.*\)\)", said(client.uid("FETCH", "2", "(UID FLAGS)")))
    deliver(third)
    said(client.noop())
    assert told(client.response("EXISTS")).split()[-1] == b"3"
    assert said(client.uid("FETCH", "3", "(UID RFC822.SIZE)")).startswith(b"3 (UID 3 RFC822.SIZE ")
    said(client.uid("MOVE", "1", "Junk"))
    assert re.fullmatch(rb"\d+ 1 1", told(client.response("COPYUID")))
    assert told(client.response("EXPUNGE")) == b"1"
    said(client.uid("STORE", "3", "+FLAGS.SILENT", "(\\Deleted)"))
    said(client.uid("EXPUNGE", "2"))  # not marked
    assert said(client.uid("SEARCH", "ALL")) == b"2 3"
    said(client.uid("EXPUNGE", "2:3"))
    assert said(client.uid("SEARCH", "ALL")) == b"2"
    assert client.select("Nowhere")[0] == "NO"


# --- ten touchpoints -------------------------------------------------------------------------------------------------


def a_touchpoint(id: str, server: HostileServer, secrets: Path, **keys: Any) -> dict[str, Any]:
    secret = secrets / id
    secret.write_text(server.password)
    return {
        "id": id,
        "address": server.login,
        "name": id.title(),
        "active": True,
        "direction": "inbound",
        "linked_queues": [id],
        "imap": f"imap+insecure://127.0.0.1:{server.port}",
        "password": f"file:{secret}",
        "history": "all",
        **keys,
    }


@pytest.fixture
def make_server() -> Iterator[Callable[..., HostileServer]]:
    """Makes servers that are gone at the end of the test."""
    made: list[HostileServer] = []

    def make(id: str, pair: Pair | None = None, capabilities: str = CAPABILITIES) -> HostileServer:
        made.append(HostileServer(f"{id}@support.example", f"secret of {id}", pair, capabilities))
        return made[-1]

    try:
        yield make
    finally:
        for server in made:
            server.close()


@pytest.mark.timeout(420)
def test_one_hostile_server_costs_nine_healthy_touchpoints_nothing_and_loses_nothing_itself(
    make_server: Callable[..., HostileServer],
    authority: Authority,
    make_daemon: Callable[..., Daemon],
    tmp_path: Path,
) -> None:
    honest = {id: make_server(id) for id in (f"well-{number}" for number in range(1, HEALTHY + 1))}
    server = make_server("hostile", authority.issue("hostile"))
    site = Site([a_touchpoint(id, one, tmp_path) for id, one in honest.items()])
    site.gateway = {"inbound": {"max_message_size": LARGEST}}
    daemon = make_daemon(site, program=(hurried.__file__, f"{server.port}:{RATE}"))
    daemon.start()
    daemon.wait_connected(*honest)
    onlooker = Onlooker(daemon)
    story = Story(daemon, server, onlooker)
    customers = Correspondents({id: one.deliver for id, one in honest.items()}, pause=0.08)
    latencies = Latencies(customers, onlooker)
    with contextlib.ExitStack() as ending, onlooker.looking():
        ending.callback(lambda: print(story.table(), latencies.table(), sep="\n"))
        with customers.writing():
            time.sleep(4)  # the measured time without the hostile one: nothing is waited for
            latencies.hostile_from = time.monotonic()
            story.begin()
            memory_before = story.memory.now
            daemon.site.touchpoints.append(
                a_touchpoint(
                    "hostile",
                    server,
                    tmp_path,
                    imap=f"imaps://localhost:{server.port}",
                    ca_file=str(authority.ca_file),
                    watch={"poll": "1 s"},
                )
            )
            daemon.write_config()
            daemon.ask("reload")
            first = story.write(5)
            assert story.wait(lambda: not story.missing(first)), daemon.log_tail()
            strange = strange_messages()
            server.deliver(*strange)
            story.meet_odd_messages()
            for trial in TRIALS:
                story.play(trial)
            story.surface_late()
            story.wait(lambda: all(odd.is_settled for odd in story.odd), 170)  # the longest rest: four hours
        wanted = {message_id(message.raw) for message in server.messages().values()}
        story.wait(lambda: not story.missing(list(wanted)), 60)
        story.wait(lambda: set(customers.sent) <= set(onlooker.seen), 30)
        story.hear(Line("the end"))
    # Everything that is wrong, and not just the first of it; each of these is empty when all is well
    listed = daemon.ask("queue.list", all=True)
    found = [id for conversation in listed for id in conversation["message_ids"]]
    in_hostile = [conversation for conversation in listed if "hostile" in conversation["queues"]]
    in_queue = Counter(id for conversation in in_hostile for id in conversation["message_ids"])
    kept = Counter(message_id(message.raw) for message in server.messages().values())
    noted = Counter(message_id(odd.message.raw) for odd in story.odd if not odd.heals)  # perhaps without their headers
    notes = [(one["subject"], one["message_ids"]) for one in in_hostile if not set(one["message_ids"]) & set(kept)]
    most = max(line.peak for line in story.lines) - memory_before
    slow = max(latencies.beside)
    looked_at: dict[str, Any] = {
        # (a) the daemon lives
        "ended": [] if daemon.is_running else ["it has"],
        "restarted": sorted(onlooker.pids)[1:],
        "did not answer": onlooker.troubles,
        "bugs": story.bugs,
        "felt by others": story.disturbed,
        # (b) the nine have every letter once, and in time
        "lost beside it": sorted(set(customers.sent) - set(found)),
        "twice beside it": repeated(id for id in found if id in customers.sent),
        "late beside it": [] if slow < max(LATEST, 2 * max(latencies.before)) else [f"{slow:.1f} s"],
        # (c) the tenth too: all that stayed has its one place, and nothing else has
        "troubles": {line.name: line.trouble for line in story.lines if line.trouble},
        "lost": sorted(kept - in_queue - noted),
        "twice": repeated(in_queue.elements()),
        "of nothing": notes if len(notes) > len(noted - in_queue) else [],
        "changed": story.changed([*strange, *(odd.message.raw for odd in story.odd if odd.heals)]),
        "forged": [id for id in in_queue if id == "<forged@x>"],
        # (d) what could not be fetched had a placeholder, and the message when it could
        "without a placeholder": [odd.name for odd in story.odd if odd.stood_in_after is None],
        "not replaced": [odd.name for odd in story.odd if not odd.is_settled],
        # (e) memory is bounded
        "memory": [] if most < MOST_MEMORY else [f"{most:.0f} MB more"],
        # and we were a good client all the while
        "connections": server.crowds,
        "rude": [one for one in server.commands if re.match(r"(CLOSE|EXPUNGE|STORE|FETCH|SEARCH)\b", one)],
        "misunderstood": [one for one in server.misunderstood if not CAPABILITY_GONE.search(one)],
        "marked": [uid for uid, message in server.messages().items() if message.flags],
        "told": [server.password] if server.password in daemon.log.read_text() else [],
    }
    wrong = {name: found for name, found in looked_at.items() if found}
    assert not wrong, pprint.pformat(wrong, width=160)


# --- filing ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("without", "verbs"), [("", ["MOVE"]), ("MOVE ", ["COPY", "STORE", "EXPUNGE"])], ids=["move", "copy-and-expunge"]
)
def test_what_is_filed_lies_in_one_place_in_the_end_whatever_the_server_does_meanwhile(
    make_server: Callable[..., HostileServer],
    make_daemon: Callable[..., Daemon],
    tmp_path: Path,
    without: str,
    verbs: list[str],
) -> None:
    server = make_server("filing", capabilities=CAPABILITIES.replace(without, ""))
    keys = {"after_fetch": "move:Done", "watch": {"poll": "1 s"}}
    daemon = make_daemon(
        Site([a_touchpoint("filing", server, tmp_path, **keys)]),
        program=(hurried.__file__, f"{server.port}:{3 * RATE}"),
    )
    daemon.start()
    written: list[Message] = []

    def is_filed() -> bool:
        return not server.messages() and len(server.folders.get("Done", Folder("")).messages) >= len(written)

    for verb in verbs:
        for fault in (
            answers_after(f"UID {verb}", 1),
            answers(f"UID {verb}", "TAG OK done, says the server"),
            answers(f"UID {verb}", "TAG NO [UNAVAILABLE] not now"),
            *((at(f"UID {verb}", BYE), at(f"UID {verb}")) if verb in ("MOVE", "COPY") else ()),
        ):
            with server.in_force(fault):
                written.append(Message(letter(len(written), f"filed by {verb}")))
                server.deliver(written[-1])
                wait_until(lambda fault=fault: fault.ended, f"{verb} is met", state=daemon.log_tail)  # type: ignore[misc]
            wait_until(is_filed, f"it is filed in spite of its {verb}", state=daemon.log_tail)
    for folder in ("INBOX", "Junk", "Sent"):
        assert server.messages(folder) == {}
    filed = Counter(message.number for message in server.messages("Done").values())
    assert filed == Counter(message.number for message in written)
    in_queue = [id for conversation in daemon.conversations() for id in conversation["message_ids"]]
    assert sorted(in_queue) == sorted(message_id(message.raw) for message in written)
    assert [one for one in server.commands if re.match(r"(CLOSE|EXPUNGE|STORE)\b", one)] == []
    assert [one for one in server.misunderstood if "Done" not in one] == []
    assert "Traceback" not in daemon.log.read_text()
