"""Folders, and the extensions of IMAP that help where they are and are not missed where they are not."""

from __future__ import annotations

from typing import Any

import pytest

from gateway.errors import Unavailable
from gateway.inbound.session import FolderListing, NoFolder, NotGiven, Selected, Status
from tests.shell.imap_client import client_of, selected
from tests.shell.imap_script import ImapServer, Peer, letter

PLAIN = "IMAP4rev1 SASL-IR AUTH=PLAIN"
ALL = f"{PLAIN} ENABLE CONDSTORE QRESYNC UTF8=ACCEPT UIDONLY ESEARCH LIST-EXTENDED SPECIAL-USE"


def server_with(capabilities: str) -> ImapServer:
    server = ImapServer()
    server.capabilities = capabilities
    return server


# --- what is switched on ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "uid_only", "command"),
    [
        (ALL, True, "ENABLE QRESYNC UTF8=ACCEPT UIDONLY"),
        (ALL, False, "ENABLE QRESYNC UTF8=ACCEPT"),
        (f"{PLAIN} ENABLE CONDSTORE", True, "ENABLE CONDSTORE"),
        (f"{PLAIN} ENABLE", True, None),
        (f"{PLAIN} QRESYNC UIDONLY", True, None),
    ],
    ids=["all", "all-but-uidonly", "condstore", "nothing-to-enable", "cannot-enable"],
)
async def test_only_what_is_listed_is_enabled(capabilities: str, uid_only: bool, command: str | None) -> None:
    server = server_with(capabilities)
    async with client_of(server) as client:
        session = await client.connect(uid_only=uid_only)
        asked = [said for said in server.commands if said.startswith("ENABLE")]
        assert asked == ([command] if command else [])
        assert session.enabled == set(command.split()[1:] if command else ())
        await client.call(session.logout)


async def test_a_server_that_refuses_them_together_is_asked_for_each() -> None:
    server = server_with(ALL)

    @server.on("ENABLE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} BAD too many arguments")
        return True

    async with client_of(server) as client:
        session = await client.connect(uid_only=True)
        assert session.enabled == {"QRESYNC", "UTF8=ACCEPT", "UIDONLY"}
        await client.call(session.logout)


@pytest.mark.parametrize("gains", [True, False])
async def test_what_counts_is_what_the_server_can_do_after_the_login(gains: bool) -> None:
    server = server_with(PLAIN if gains else ALL)

    @server.on("AUTHENTICATE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        server.capabilities = ALL if gains else PLAIN
        await peer.say(f"{tag} OK welcome")
        return True

    await server.deliver(letter(1))
    async with client_of(server) as client:
        session = await client.connect()
        selected = await client.call(session.select, "INBOX", False, (7, 1))
        assert (selected.modseq is not None) == gains
        assert bool(session.enabled) == gains
        assert await client.call(session.uids, 1) == [1]
        await client.call(session.logout)


async def test_a_change_of_mind_is_heard_at_any_time() -> None:
    server = ImapServer()
    async with selected(server) as (client, session):
        assert session.can_idle

        @server.on("UID SEARCH")
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say("* CAPABILITY IMAP4rev1", "* SEARCH", f"{tag} OK")
            return True

        await client.call(session.uids, 1)
        assert not session.can_idle


# --- LIST and STATUS -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("capabilities", [PLAIN, ALL], ids=["utf7", "utf8"])
async def test_folders_have_names_and_uses(capabilities: str) -> None:
    server = server_with(capabilities)
    server.folders |= {"Entwürfe & Co": {}, 'Quo"ted\\': {}, "Werbung": {}, "Nur ein Ordner": {}}
    server.attributes = {"Werbung": "\\HasNoChildren \\Junk", "Nur ein Ordner": "\\Noselect"}
    async with client_of(server) as client:
        session = await client.connect()
        assert await client.call(session.folders) == [
            FolderListing("INBOX", "/", frozenset()),
            FolderListing("Entwürfe & Co", "/", frozenset()),
            FolderListing('Quo"ted\\', "/", frozenset()),
            FolderListing("Werbung", "/", frozenset({"\\hasnochildren", "\\junk"})),
        ]
        await server.deliver(letter(1), folder="Entwürfe & Co")
        assert (await client.call(session.select, "Entwürfe & Co")).exists == 1
        assert (await client.call(session.status, 'Quo"ted\\')).exists == 0
        await client.call(session.logout)


async def test_a_list_that_is_half_rubbish_is_half_a_list() -> None:
    server = ImapServer()
    rubbish: list[str | bytes] = [
        '* LIST () "/" {7}\r\nliteral',
        '* LIST () NIL "no delimiter"',
        '* LIST (\\Sent) "." INBOX.Sent',
        '* LIST () "/" "INBOX" ("CHILDINFO" ("SUBSCRIBED"))',
        '* LIST () "/" "INBOX"',  # once more
        '* LIST () "/" "R&D"',
        b'* LIST () "/" "Gel\xc3\xb6scht"',
        '* LIST () "/" ""',
        '* LIST () "/" "&AA0ACg-evil"',
        '* LIST () "/" "unfinished',
        "* LIST",
        "* LIST (",
        '* LIST () "/"',
        '* LIST () "/" {5',
        "* LIST nonsense NIL NIL",
        '* LIST (\\NonExistent) "/" "gone"',
    ]

    @server.on("LIST")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(*rubbish, f"{tag} OK")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        found = {listing.name: listing for listing in await client.call(session.folders)}
        assert list(found) == ["literal", "no delimiter", "INBOX.Sent", "INBOX", "R&D", "Gelöscht"]
        assert found["no delimiter"].delimiter is None
        assert found["INBOX.Sent"] == FolderListing("INBOX.Sent", ".", frozenset({"\\sent"}))
        for name in ("R&D", "Gelöscht"):  # asked for as the server writes it, which is not as it should
            with pytest.raises(NoFolder):
                await client.call(session.status, name)
            assert f'"{name}"' in server.commands[-1]
        await client.call(session.logout)


async def test_a_server_that_cannot_list_as_it_says_is_asked_plainly() -> None:
    server = server_with(ALL)

    @server.on("LIST .*RETURN")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} BAD what?")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        assert [listing.name for listing in await client.call(session.folders)] == ["INBOX"]
        assert server.commands[-2:] == ['LIST "" "*" RETURN (SPECIAL-USE)', 'LIST "" "*"']

        @server.on("LIST", times=2)
        async def _(peer: Peer, tag: str, command: str) -> bool:
            await peer.say(f"{tag} NO not now")
            return True

        with pytest.raises(NotGiven, match="does not list its folders: not now"):
            await client.call(session.folders)
        await client.call(session.logout)


@pytest.mark.parametrize(("capabilities", "modseq"), [(PLAIN, None), (ALL, 2)])
async def test_a_folder_can_be_looked_at_without_opening_it(capabilities: str, modseq: int | None) -> None:
    server = server_with(capabilities)
    server.folders["Junk"] = {}
    server.uidvalidities["Junk"] = 99
    await server.deliver(letter(1), folder="Junk")
    async with client_of(server) as client:
        session = await client.connect()
        assert await client.call(session.status, "Junk") == Status(99, 2, 1, modseq)
        with pytest.raises(NoFolder, match=r"does not open the folder 'Nothing'"):
            await client.call(session.status, "Nothing")
        await client.call(session.logout)


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ('* STATUS "Junk" (UIDVALIDITY 5 UIDNEXT 4294967296 MESSAGES 99999999999999)', Status(5, None, 2**32 - 1)),
        ("* STATUS {4}\r\nJunk (UIDVALIDITY 5)", Status(5, None, 0)),
        ("* STATUS Junk (UIDVALIDITY 5 HIGHESTMODSEQ 9223372036854775808)", Status(5, None, 0)),
        ("* STATUS Junk (UIDVALIDITY 0)", None),
        ("* STATUS Junk (UIDVALIDITY", None),
        ("* STATUS Junk NIL", None),
    ],
)
async def test_a_strange_status_is_none_or_makes_sense(answer: str, expected: Status | None) -> None:
    server = ImapServer()

    @server.on("STATUS")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(answer, f"{tag} OK")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        if expected is None:
            with pytest.raises(NotGiven, match="no UIDVALIDITY"):
                await client.call(session.status, "Junk")
        else:
            assert await client.call(session.status, "Junk") == expected
        await client.call(session.logout)


async def test_a_server_that_does_not_know_modseq_in_status_is_asked_without() -> None:
    server = server_with(ALL)

    @server.on("STATUS .*HIGHESTMODSEQ")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} BAD unknown item")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        assert await client.call(session.status, "INBOX") == Status(7, 1, 0)
        await client.call(session.logout)


# --- opening, and what has vanished ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("capabilities", "known", "vanished"),
    [
        (ALL, (7, 4), (2, 3)),
        (ALL, (8, 4), ()),
        (ALL, (7, 0), ()),
        (ALL, None, ()),
        (ALL.replace("ENABLE", ""), (7, 4), ()),
        (PLAIN, (7, 4), ()),
    ],
    ids=["resync", "renumbered", "no-modseq", "unknown", "cannot-enable", "plain"],
)
async def test_what_vanished_since_is_told_where_the_server_can(
    capabilities: str, known: tuple[int, int] | None, vanished: tuple[int, ...]
) -> None:
    server = server_with(capabilities)
    await server.deliver(letter(1), letter(2), letter(3))
    await server.expunge(2, 3)
    async with client_of(server) as client:
        session = await client.connect()
        modseq = 6 if "QRESYNC" in capabilities else None
        assert await client.call(session.select, "INBOX", False, known) == Selected(7, 4, 1, modseq, vanished)
        assert any("QRESYNC (" in command for command in server.commands) == bool(
            "ENABLE" in capabilities and known and known[1]
        )
        await client.call(session.logout)


async def test_a_server_that_cannot_resync_after_all_opens_the_folder_all_the_same() -> None:
    server = server_with(ALL)

    @server.on("EXAMINE .*QRESYNC")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"{tag} BAD unknown parameter")
        return True

    async with client_of(server) as client:
        session = await client.connect()
        assert (await client.call(session.select, "INBOX", False, (7, 1))).exists == 0
        await client.call(session.logout)


@pytest.mark.parametrize("capabilities", [ALL, PLAIN], ids=["qresync", "plain"])
async def test_what_another_client_deletes_is_told_by_uid_where_the_server_can(capabilities: str) -> None:
    server = server_with(capabilities)
    await server.deliver(letter(1), letter(2), letter(3))
    async with selected(server) as (client, session):
        assert session.vanished() == set()
        await server.expunge(1, 3)
        assert await client.call(session.uids, 1) == [2]
        assert session.vanished() == ({1, 3} if capabilities == ALL else set())
        assert session.vanished() == set()


async def test_what_is_said_of_the_folder_before_is_not_said_of_this_one() -> None:
    server = server_with(ALL)
    server.folders["Junk"] = {}

    @server.on('EXAMINE "Junk"')
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say("* VANISHED 1", "* VANISHED (EARLIER) 5", "* 9 EXISTS", "* OK [UIDVALIDITY 3] old")
        await peer.say("* OK [HIGHESTMODSEQ 4] old", "* OK [CLOSED] now the other")
        return False

    async with selected(server) as (client, session):
        assert await client.call(session.select, "Junk", False, (3, 1)) == Selected(7, 1, 0, 1)
        assert session.vanished() == set()


@pytest.mark.parametrize("named", ["1:4294967295", ",".join(str(number) for number in range(1, 400_000, 2))])
async def test_a_server_that_names_every_uid_it_ever_gave_takes_little_memory(named: str) -> None:
    server = server_with(ALL)

    @server.on("EXAMINE")
    async def _(peer: Peer, tag: str, command: str) -> bool:
        await peer.say(f"* VANISHED (EARLIER) {named}")
        return False

    async with client_of(server) as client:
        session = await client.connect()
        found = (await client.call(session.select, "INBOX", False, (7, 1))).vanished
        assert len(found) == 10_000
        assert found[-1] == (2**32 - 1 if ":" in named else 399_999)
        await client.call(session.logout)


async def test_a_folder_whose_name_cannot_be_said_is_refused_without_a_word() -> None:
    server = server_with(f"{PLAIN} MOVE")
    async with client_of(server) as client:
        session = await client.connect()
        calls: list[tuple[Any, ...]] = [(session.select,), (session.status,), (session.move, [1])]
        await client.call(session.select, "INBOX")
        said = len(server.commands)
        for method, *args in calls:
            with pytest.raises(Unavailable, match="cannot be asked for"):
                await client.call(method, *args, "a\r\nA1 DELETE INBOX")
        assert len(server.commands) == said
        await client.call(session.logout)
