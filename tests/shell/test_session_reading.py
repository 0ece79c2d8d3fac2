"""Listings, windows of UIDs and parts of messages, at servers with and without every extension that matters here."""

from __future__ import annotations

import bisect
import contextlib
import re
import tracemalloc
from collections.abc import Sequence
from functools import partial

import pytest

from gateway.errors import Unavailable
from gateway.inbound.fetch import Fetched
from gateway.inbound.identity import FIELDS, SENT_FIELDS, object_id
from gateway.inbound.session import NotGiven
from tests.shell.imap_client import client_of, selected
from tests.shell.imap_script import ImapServer, Letter, Peer, letter

PLAIN = "IMAP4rev1 SASL-IR AUTH=PLAIN"
YAHOO = f"{PLAIN} ENABLE OBJECTID CONDSTORE QRESYNC UIDONLY PARTIAL MESSAGELIMIT=3"


# --- every server gives the same -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "capabilities",
    [PLAIN, f"{PLAIN} ESEARCH", f"{PLAIN} MESSAGELIMIT=1", f"{PLAIN} ESEARCH MESSAGELIMIT=2", YAHOO],
    ids=["plain", "esearch", "limit-1", "limit-2", "yahoo"],
)
async def test_every_kind_of_server_gives_the_same(capabilities: str) -> None:
    server = ImapServer()
    server.capabilities = capabilities
    await server.deliver(*(letter(number) for number in range(1, 12)))
    await server.expunge(2, 5, 6, 11)
    there = [1, 3, 4, 7, 8, 9, 10]
    async with selected(server, uid_only=True) as (client, session):
        assert await client.call(session.uids, 1) == there
        assert await client.call(session.uids, 3, 8) == [3, 4, 7, 8]
        assert await client.call(session.uids, 4, 4) == [4]
        assert await client.call(session.uids, 11) == []
        assert await client.call(session.uids, 2**32 - 1) == []
        assert await client.call(session.uids_above, 7) == [8, 9, 10]
        assert await client.call(session.present, list(range(1, 12))) == there
        assert [item.uid for item in await client.call(session.listed_above, 3)] == there[2:]
        assert [item.uid for item in await client.call(session.listed, list(range(1, 12)))] == there
        assert [item.uid for item in await client.call(session.headed, list(range(1, 12)))] == there
        fetched = await client.call(session.fetch, list(range(1, 12)), 3000)
        assert fetched == [Fetched(uid, letter(uid)) for uid in there]
        assert await client.call(session.with_message_id, "<8@clients.example>") == [8]
        assert await client.call(session.with_message_id, 'strange\r\n"') == []
    assert any("UIDONLY" in command for command in server.commands) == (capabilities == YAHOO)


async def test_a_limit_that_was_not_announced_is_learned() -> None:
    server = ImapServer()
    await server.deliver(*(letter(number) for number in range(1, 11)))
    asked: list[str] = []

    @server.on("UID FETCH", times=1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        asked.append(command.split()[2])
        low, _, high = asked[-1].partition(":")
        uids = list(range(int(low), int(high or low) + 1))
        if len(uids) > 4:
            await peer.say(f"{tag} NO [MESSAGELIMIT 4] too many")
            return True
        return False

    async with selected(server) as (client, session):
        assert len(await client.call(session.listed, list(range(1, 11)))) == 10
        assert len(await client.call(session.fetch, list(range(1, 11)), 3000)) == 10
        assert asked[-3:] == ["1:4", "5:8", "9:10"]  # the second time it knows


@pytest.mark.parametrize("where", ["tagged", "untagged"])
async def test_a_server_that_works_from_the_wrong_end_is_asked_until_all_is_there(where: str) -> None:
    server = ImapServer()
    server.capabilities = PLAIN
    await server.deliver(*(letter(number) for number in range(1, 11)))

    def bounds(text: str) -> list[int]:
        low, _, high = text.partition(":")
        return [uid for uid in server.letters if int(low) <= uid <= (10 if high == "*" else int(high or low))]

    async def end(peer: Peer, tag: str, uids: Sequence[int], lines: Sequence[str]) -> None:
        code = "" if len(uids) <= 3 else f"[MESSAGELIMIT 3 {uids[2]}]"
        if where == "tagged":
            await peer.say(*lines, f"{tag} OK {code} done")
        else:
            await peer.say(*lines, *([f"* NO {code} not all"] if code else []), f"{tag} OK [HIGHESTMODSEQ 5] done")

    @server.on("UID SEARCH", times=1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        uids = bounds(command.split()[3])
        await end(peer, tag, uids, [" ".join(["* SEARCH", *map(str, uids[:3])])])
        return True

    @server.on("UID FETCH", times=1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        uids = bounds(command.split()[2])
        date = '"17-Jul-2026 02:44:25 +0000"'
        await end(peer, tag, uids, [f"* 1 FETCH (UID {uid} RFC822.SIZE 5 INTERNALDATE {date})" for uid in uids[:3]])
        return True

    async with selected(server) as (client, session):
        assert await client.call(session.uids, 1) == list(range(1, 11))
        assert [item.uid for item in await client.call(session.listed, list(range(1, 11)))] == list(range(1, 11))
        assert [item.uid for item in await client.call(session.listed_above, 0)] == list(range(1, 11))


# --- a large folder --------------------------------------------------------------------------------------------------


class LargeFolder:
    """A folder with these UIDs, of which only SEARCH and EXAMINE know."""

    def __init__(self, uids: list[int], esearch: bool) -> None:
        self.uids = uids
        self.server = ImapServer()
        self.server.capabilities = f"{PLAIN} {'ESEARCH' if esearch else ''}"
        self.searches = 0
        self.server.on("EXAMINE", times=9)(self.examine)
        self.server.on("UID SEARCH", times=10_000)(self.search)

    async def examine(self, peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"* {len(self.uids)} EXISTS", "* OK [UIDVALIDITY 1]", f"* OK [UIDNEXT {self.uids[-1] + 1}]")
        await peer.say(f"{tag} OK")
        return True

    async def search(self, peer: Peer, tag: str, command: str) -> bool:
        self.searches += 1
        match = re.search(r"UID (\d+):(\d+|\*)", command[4:])
        assert match is not None
        low, high = int(match[1]), 2**32 if match[2] == "*" else int(match[2])
        found = self.uids[bisect.bisect_left(self.uids, low) : bisect.bisect_right(self.uids, high)]
        if match[2] == "*" and not found:
            found = self.uids[-1:]
        if "RETURN" in command:
            await peer.say(f'* ESEARCH (TAG "{tag}") UID ALL {",".join(map(str, found))}', f"{tag} OK")
        else:
            await peer.say("* SEARCH " + " ".join(map(str, found)), f"{tag} OK")
        return True


@pytest.mark.parametrize("esearch", [True, False], ids=["esearch", "search"])
@pytest.mark.parametrize(
    ("uids", "most_searches"),
    [
        (list(range(1, 500_001, 2)), 8),
        (list(range(7, 2**32 - 1, 20_000)), 10),
        ([*range(1, 60_000), *range(2**31, 2**31 + 150_000)], 12),
        ([*range(5, 2**32 - 1, 2**25), *range(2**32 - 150_000, 2**32)], 20),
    ],
    ids=["every-second", "spread", "two-heaps", "heap-at-the-end"],
)
async def test_a_large_folder_is_listed_in_a_few_windows(uids: list[int], most_searches: int, esearch: bool) -> None:
    folder = LargeFolder(uids, esearch)
    async with selected(folder.server) as (client, session):
        assert await client.call(session.uids, 1) == uids
        assert 1 < folder.searches <= most_searches
        assert await client.call(session.uids, uids[10], uids[-10]) == uids[10:-9]


async def test_a_small_folder_is_listed_in_one_question() -> None:
    folder = LargeFolder([1, 2**31, 2**32 - 1], esearch=False)
    async with selected(folder.server) as (client, session):
        assert await client.call(session.uids, 1) == folder.uids
        assert folder.searches == 1


async def test_the_beginning_of_a_backlog_is_listed_without_the_rest() -> None:
    uids = list(range(1, 2_000_000, 2))
    folder = LargeFolder(uids, esearch=False)
    async with selected(folder.server) as (client, session):
        assert await client.call(session.uids_above, 4, 2001) == uids[2:2003]
        assert await client.call(session.uids, 4, None, 2001) == uids[2:2003]
        assert await client.call(session.uids, 4, 10, 2) == [5, 7]
        assert await client.call(session.uids, 1, None, 0) == []
        assert folder.searches == 3


@pytest.mark.parametrize("esearch", [True, False], ids=["esearch", "search"])
async def test_a_heap_that_is_larger_than_an_answer_may_be_is_listed_all_the_same(esearch: bool) -> None:
    uids = [*range(1, 300_000, 150), *range(2**31, 2**31 + 500_000), 2**32 - 1]
    folder = LargeFolder(uids, esearch)
    async with selected(folder.server) as (client, session):
        assert await client.call(session.uids, 1) == uids
        assert folder.searches < 25
        assert (
            await client.call(session.uids, 200_000, None, 150_000) == [uid for uid in uids if uid > 200_000][:150_000]
        )


@pytest.mark.parametrize("order", ["reversed", "twice"])
async def test_a_large_folder_without_order_is_listed_piece_by_piece(order: str) -> None:
    uids = list(range(1, 60_000))
    server = ImapServer()

    @server.on("UID SEARCH", times=100)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        low, _, high = command.split()[-1].partition(":")
        found = [uid for uid in uids if int(low) <= uid <= (2**32 if high == "*" else int(high))]
        await peer.say(" ".join(["* SEARCH", *map(str, found[::-1] if order == "reversed" else found + found)]))
        await peer.say(f"{tag} OK")
        return True

    async with selected(server) as (client, session):
        session._exists = len(uids)
        assert await client.call(session.uids, 1) == uids


@pytest.mark.parametrize(
    "answer",
    [
        "* SEARCH" + " 1 2 3 4 5 6 7 8" * 30_000,
        "* SEARCH " + " ".join(map(str, range(1, 120_000))),
        "* ESEARCH UID ALL " + ",".join(["1:4294967295"] * 10_000),
        "* ESEARCH UID ALL " + ",".join(["1:99"] * 50_000),
    ],
    ids=["search", "search-ascending", "wide-ranges", "short-ranges"],
)
async def test_whatever_is_listed_no_more_is_kept_than_was_asked_for(answer: str) -> None:
    """The server claims as many messages as there can be, and answers everything with the same."""
    server = ImapServer()

    @server.on("UID SEARCH", times=1_000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(answer, answer, answer, f"{tag} OK")
        return True

    async with selected(server) as (client, session):
        session._exists = session._uidnext = 2**32 - 1
        there = set(range(1, 40_001)) | {50_000, 2**32 - 1}
        for ask in (partial(session.uids, 1, 40_000), partial(session.present, [1, 50_000, 2**32 - 1])):
            with contextlib.suppress(Unavailable):
                assert set(await client.call(ask)) <= there
        tracemalloc.start()
        try:
            with pytest.raises(Unavailable, match=r"far more messages than it was asked for|more than [0-9]+ messages"):
                await client.call(session.uids, 1)
            assert tracemalloc.get_traced_memory()[1] < 64 * 2**20
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("answer", ["* ESEARCH UID ALL 1:4294967295", "* SEARCH 1" + " 1" * 60_000])
async def test_a_server_that_lists_more_than_there_can_be_is_not_believed(answer: str) -> None:
    server = ImapServer()

    @server.on("UID SEARCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(answer, f"{tag} OK")
        return True

    async with selected(server) as (client, session):
        with pytest.raises(Unavailable, match="far more messages than the folder has"):
            await client.call(session.uids, 1)
        assert await client.call(session.uids, 1) == []


async def test_uids_without_order_are_put_in_order_each_once() -> None:
    server = ImapServer()

    @server.on("UID SEARCH", times=2)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("* SEARCH 9 3 3 70", "* SEARCH x 1 0 9 -5 4294967296 5", f"{tag} OK")
        return True

    async with selected(server) as (client, session):
        assert await client.call(session.uids, 2, 60) == [3, 5, 9]
        assert await client.call(session.present, [3, 4, 70]) == [3, 70]


# --- sets ------------------------------------------------------------------------------------------------------------


async def test_bodies_are_asked_for_exactly_and_in_lines_that_servers_take() -> None:
    server = ImapServer()
    await server.deliver(*(letter(number, 10) for number in range(900)))
    wanted = list(range(1, 900, 2))
    async with selected(server) as (client, session):
        before = len(server.commands)
        assert [item.uid for item in await client.call(session.fetch, wanted, 100_000)] == wanted
        fetches = server.commands[before:]
        assert len(fetches) > 1
        assert max(map(len, fetches)) < 1000
        named = [int(uid) for command in fetches for uid in command.split()[2].split(",")]
        assert named == wanted  # and nothing between them
        before = len(server.commands)
        assert [item.uid for item in await client.call(session.listed, wanted)] == wanted
        assert len(server.commands) - before == 1  # where it costs little, a stretch is named by its ends


# --- identity --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capability", "expected"),
    [("OBJECTID", object_id(b"emailid", b"M1")), ("X-GM-EXT-1", object_id(b"gm", b"1278455344230334865")), ("", None)],
)
async def test_a_message_has_the_id_that_the_server_gives_it(capability: str, expected: int | None) -> None:
    server = ImapServer()
    server.capabilities = f"{PLAIN} {capability}"
    server.letters[1] = Letter(letter(1), own_id="M1" if capability == "OBJECTID" else "1278455344230334865")
    async with selected(server) as (client, session):
        (listed,) = await client.call(session.listed, [1])
        assert listed.object_id == expected
        (headed,) = await client.call(session.headed, [1])
        assert headed.listed == listed
        assert (await client.call(session.listed_above, 0)) == [listed]


@pytest.mark.parametrize("method", ["listed", "headed", "listed_above"])
async def test_a_server_that_has_no_such_id_after_all_is_not_asked_again(method: str) -> None:
    server = ImapServer()
    server.capabilities = f"{PLAIN} OBJECTID"
    await server.deliver(letter(1))

    @server.on("UID FETCH .*EMAILID", times=1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} BAD what is EMAILID")
        return True

    async with selected(server) as (client, session):
        for _turn in range(2):
            found = await client.call(getattr(session, method), 0 if method == "listed_above" else [1])
            assert [item.uid for item in found] == [1]
    assert len([command for command in server.commands if "EMAILID" in command]) == 1


async def test_a_listing_that_is_refused_is_trouble() -> None:
    server = ImapServer()

    @server.on("UID FETCH", times=3)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} NO [UNAVAILABLE] Server error - Please try again later")
        return True

    async with selected(server) as (client, session):
        for method, argument in ((session.listed, [1]), (session.headed, [1]), (session.listed_above, 0)):
            with pytest.raises(Unavailable, match="did not list messages: Server error"):
                await client.call(method, argument)
        assert await client.call(session.listed_above, 0) == []  # the session goes on


async def test_the_header_fields_are_those_that_were_asked_for() -> None:
    server = ImapServer()
    raw = b"Message-ID: <1@x>\r\nSubject: s\r\nIn-Reply-To: <0@x>\r\n\r\nbody"
    await server.deliver(raw)
    async with selected(server) as (client, session):
        (few,) = await client.call(session.headed, [1], FIELDS)
        assert few.header == b"Message-ID: <1@x>\r\n\r\n"
        (more,) = await client.call(session.headed, [1], SENT_FIELDS)
        assert more.header == b"Message-ID: <1@x>\r\nIn-Reply-To: <0@x>\r\n\r\n"


# --- parts -----------------------------------------------------------------------------------------------------------


async def test_a_message_comes_in_parts() -> None:
    server = ImapServer()
    await server.deliver(letter(1, 1000))
    async with selected(server) as (client, session):
        parts = [await client.call(session.fetch_part, 1, offset, 300) for offset in range(0, 1500, 300)]
        assert b"".join(parts) == letter(1, 1000)
        assert [len(part) for part in parts] == [300, 300, 300, 100, 0]
        assert await client.call(session.fetch_part, 2, 0, 300) is None


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ("* 1 FETCH (UID 1 BODY[] {10}\r\n0123456789)", b"4567"),  # does not know parts: gives all
        ("* 1 FETCH (UID 1 BODY[]<4> {6}\r\n456789)", b"4567"),  # more than we asked for
        ("* 1 FETCH (UID 1 BODY[]<4> NIL)", None),
        ("* 1 FETCH (UID 1 BODY[]<0> {4}\r\n0123)", None),  # another part
        ("* 1 FETCH (UID 2 BODY[]<4> {4}\r\n4567)", None),
        ("* 1 FETCH (UID 1 FLAGS ())", None),
        ("* NO thing to see", None),
    ],
)
@pytest.mark.parametrize("condition", ["OK", "NO"])
async def test_a_part_is_the_part_that_was_asked_for(answer: str, expected: bytes | None, condition: str) -> None:
    server = ImapServer()

    @server.on("UID FETCH")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(answer, f"{tag} {condition} done")
        return True

    async with selected(server) as (client, session):
        assert await client.call(session.fetch_part, 1, 4, 4) == expected
        assert await client.call(session.uids, 1) == []


ENVELOPE = (
    b'("Fri, 17 Jul 2026" {16}\r\nFrage\r\nBcc: evil (("A \\"B\\"" NIL "a" "x.example")) NIL NIL'
    b' ((NIL NIL "group" NIL) ("=?utf-8?q?J=C3=B6?=" NIL "jo" "x.example") (NIL NIL NIL NIL) rubbish)'
    b' NIL NIL NIL "<1@x>")'
)


@pytest.mark.parametrize(
    ("refuses", "expected"),
    [
        ("nothing", letter(1).partition(b"\r\n\r\n")[0] + b"\r\n\r\n"),
        (
            r"HEADER",
            b"Date: Fri, 17 Jul 2026\r\nSubject: Frage Bcc: evil\r\n"
            b'From: "A \\"B\\"" <a@x.example>\r\nTo: =?utf-8?q?J=C3=B6?= <jo@x.example>\r\nMessage-ID: <1@x>\r\n',
        ),
        ("HEADER|ENVELOPE", b""),
    ],
    ids=["header", "envelope", "neither"],
)
async def test_a_message_that_is_not_given_is_known_by_what_is(refuses: str, expected: bytes) -> None:
    server = ImapServer()
    server.letters[1] = Letter(letter(1), envelope=ENVELOPE)

    @server.on(f"UID FETCH .*({refuses})", times=9)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} NO System Error (Failure)")
        return True

    async with selected(server) as (client, session):
        assert await client.call(session.fetch_head, 1, 64 * 1024) == expected
        assert await client.call(session.fetch_head, 1, 10) == expected[:10]


async def test_a_header_that_is_empty_is_no_header() -> None:
    server = ImapServer()
    server.letters[1] = Letter(letter(1), envelope=ENVELOPE)

    @server.on("UID FETCH .*HEADER")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say('* 1 FETCH (UID 1 BODY[HEADER]<0> "")', f"{tag} OK")
        return True

    async with selected(server) as (client, session):
        assert (await client.call(session.fetch_head, 1, 1000)).startswith(b"Date: Fri")


async def test_one_refusal_among_many_batches_keeps_the_others() -> None:
    server = ImapServer()
    server.capabilities = f"{PLAIN} MESSAGELIMIT=2"
    await server.deliver(*(letter(number) for number in range(1, 6)))

    @server.on("UID FETCH 3:4 .*BODY", times=9)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} NO one of them")
        return True

    async with selected(server) as (client, session):
        assert [item.uid for item in await client.call(session.fetch, [1, 2, 3, 4, 5], 1500)] == [1, 2, 5]
        with pytest.raises(NotGiven, match="one of them"):
            await client.call(session.fetch, [3, 4], 600)


async def test_a_cut_that_leaves_one_message_is_its_no() -> None:
    server = ImapServer()
    await server.deliver(letter(1))

    @server.on("UID (FETCH|SEARCH)", times=1000)
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} NO [MESSAGELIMIT 0] nothing at all")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        await client.call(session.select, "INBOX")
        assert await client.call(session.uids, 7, 9) == []
        with pytest.raises(NotGiven, match="nothing at all"):
            await client.call(session.fetch, [1], 300)
        await client.call(session.logout)
