"""The session with real servers: what the scripted one stands for, they do too."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from gateway.config import Server
from gateway.connections import reach
from gateway.inbound import session as imap
from gateway.inbound.identity import fingerprint
from gateway.inbound.session import NoFolder, Session
from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.dovecot import Dovecot
from tests.support.letters import letter, message_id
from tests.support.provider import Provider


@pytest.fixture(scope="module", params=[Dovecot, Cyrus], ids=["dovecot", "cyrus"])
def stage(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Provider]:
    provider = Provider(authority, request.param)
    try:
        yield provider
    finally:
        provider.close()


def play(stage: Provider, id: str, letters: int, act: Callable[..., Awaitable[None]], sessions: int = 1) -> None:
    """Run `act` with sessions of a fresh mailbox that has some letters in its INBOX."""
    user = str(stage.touchpoint(id)["address"])
    stage.server.deliver(user, *(letter(number, id) for number in range(1, letters + 1)))
    server = Server("imaps", "localhost", stage.server.imaps_port)
    tls = reach.tls_context(stage.authority.ca_file)

    async def run() -> None:
        opened = [
            await imap.connect(server, tls, user, f"secret of {id}", literal_bytes=1_000_000, uid_only=True)
            for _ in range(sessions)
        ]
        try:
            await act(*opened)
        finally:
            for session in opened:
                await session.logout()

    asyncio.run(run())


def test_a_folder_is_read_in_every_way(stage: Provider) -> None:
    async def act(session: Session) -> None:
        selected = await session.select("INBOX")
        assert (selected.exists, selected.uidnext) == (6, 7)
        assert selected.modseq
        assert await session.uids(1) == [1, 2, 3, 4, 5, 6]
        assert await session.uids(2, 4) == [2, 3, 4]
        assert await session.uids(7) == []
        assert await session.uids_since((datetime.now(UTC) - timedelta(days=2)).date()) == [1, 2, 3, 4, 5, 6]
        assert await session.present([2, 4, 40]) == [2, 4]
        assert await session.with_message_id(message_id(letter(3, "reading"))) == [3]
        listed = await session.listed([1, 2, 3, 4, 5, 6, 7])
        assert await session.listed_above(0) == listed
        assert ("OBJECTID" in session.capabilities) == all(item.object_id for item in listed)
        headed = await session.headed([1, 2, 3, 4, 5, 6])
        assert [item.listed for item in headed] == listed
        fetched = await session.fetch([1, 2, 3, 4, 5, 6], 10_000)
        for item, head, message in zip(listed, headed, fetched, strict=True):
            assert message.raw is not None
            assert len(message.raw) == item.size
            assert fingerprint(message.raw, item.size, item.internal_at) == fingerprint(
                head.header, item.size, item.internal_at
            )
            assert await session.fetch_part(item.uid, 0, 100) == message.raw[:100]
            assert await session.fetch_part(item.uid, 100, 10_000) == message.raw[100:]
            assert not await session.fetch_part(item.uid, item.size, 100)
            header = message.raw.partition(b"\r\n\r\n")[0] + b"\r\n\r\n"
            assert await session.fetch_head(item.uid, 64 * 1024) == header
        assert await session.fetch_part(40, 0, 100) is None
        assert await session.fetch_head(40, 100) == b""

    play(stage, "reading", 6, act)


def test_folders_are_known_by_name_and_use(stage: Provider) -> None:
    async def act(session: Session) -> None:
        uses = {use: listing.name for listing in await session.folders() for use in listing.attributes}
        assert (uses["\\junk"], uses["\\sent"]) == ("Junk", "Sent")
        await session.create("Käse & Brot")
        assert "Käse & Brot" in [listing.name for listing in await session.folders()]
        assert (await session.select("Käse & Brot")).exists == 0
        with pytest.raises(NoFolder):
            await session.select("Nowhere")
        with pytest.raises(NoFolder):
            await session.status("Nowhere")
        await session.select("Junk")
        assert (await session.status("INBOX")).exists == 2

    play(stage, "folders", 2, act)


def test_messages_are_marked_and_moved_and_others_see_it(stage: Provider) -> None:
    async def act(session: Session, other: Session) -> None:
        known = await other.select("INBOX")
        assert known.modseq
        await session.select("INBOX", True)
        await session.flag([1, 2], "\\Seen")
        moved = await session.move([2, 3, 40], "Junk")
        assert sorted(moved.uids) == [2, 3]
        session._wire.told = session.capabilities - {"MOVE"}  # now the other way
        copied = await session.move([4], "Junk")
        assert sorted(copied.uids) == [4]
        await session.move([5], "Junk", True)
        assert session.vanished() == {2, 3, 4, 5}
        with pytest.raises(NoFolder):
            await session.move([1], "Nowhere")
        assert await session.uids(1) == [1, 6]
        junk = await other.select("Junk")
        assert junk.uidvalidity == moved.uidvalidity == copied.uidvalidity
        assert await other.uids(1) == sorted([*moved.uids.values(), *copied.uids.values()])
        again = await other.select("INBOX", False, (known.uidvalidity, known.modseq))
        assert again.vanished == (2, 3, 4, 5)

    play(stage, "moving", 6, act, sessions=2)
