"""What an IMAP server can do wrong: one `Trial` each, in the order in which a test plays them, and quirks of messages.

A trial's fault is over when every one of its hooks has ended. Most hooks end with `hang`: they wait for the client to
leave, which it must do by itself, for a server that has broken off need not close anything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from tests.support.hostile import Command, Dialog, Fault, Quirk
from tests.support.imap_model import Message, fetched, literal

NOW_AND_THEN: Final = 0.1  # seconds between two bytes of a slow-loris server: more often than we lose patience


@dataclass(frozen=True)
class Trial:
    """`make` gives fresh faults. `begins`: how the client is brought to meet them. `flows`: new mail must come through
    while they are in force. `lies`: FETCH items that are shown so of the mail that comes then, and ever after.
    """

    name: str
    make: Callable[[], Sequence[Fault]] = tuple
    begins: str = "reconnect"  # | "mail" | "reload"
    flows: bool = False
    lies: Mapping[bytes, bytes] = field(default_factory=dict)


# --- connecting ------------------------------------------------------------------------------------------------------


async def say_nothing(dialog: Dialog) -> None:
    await dialog.hang()


async def reset(dialog: Dialog) -> None:
    dialog.reset()


async def speak_plain_text(dialog: Dialog) -> None:
    """Where TLS is expected."""
    await dialog.say("* OK ready, and in the clear")
    await dialog.hang()


async def break_the_handshake(dialog: Dialog) -> None:
    await dialog.send(b"\x16\x03\x03\x40\x00" + bytes(range(256)) * 4)
    await dialog.hang()


def greet(*lines: str | bytes) -> Callable[[Dialog], Awaitable[None]]:
    async def greeting(dialog: Dialog) -> None:
        await dialog.say(*lines)
        await dialog.hang()

    return greeting


async def greet_slowly(dialog: Dialog) -> None:
    await dialog.drip(b"* OK [CAPABILITY IMAP4rev1 AUTH=PLAIN] " + b"x" * 5_000, NOW_AND_THEN)


async def greet_without_end(dialog: Dialog) -> None:
    await dialog.send(b"* OK ")
    while True:
        await dialog.send(b"x" * 65_536)


async def greet_and_leave(dialog: Dialog) -> None:
    """A greeting and a goodbye in one packet: the client has a login on its lips."""
    await dialog.say(f"* OK [CAPABILITY {dialog.capabilities}] ready", "* BYE changed my mind")
    await dialog.hang()


# --- at commands -----------------------------------------------------------------------------------------------------


def at(pattern: str, *lines: str | bytes, times: int = 1, name: str = "") -> Fault:
    """Return a fault that says `lines` instead of an answer, and nothing more. `TAG` stands for the command's tag."""

    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.say(*(line.replace("TAG", command.tag) if isinstance(line, str) else line for line in lines))
        await dialog.hang()
        return True

    return Fault(name or pattern, command=hook, on=pattern, times=times)


def answers(pattern: str, *lines: str | bytes, times: int = 1) -> Fault:
    """Return a fault that answers with `lines` and goes on."""

    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.say(*(line.replace("TAG", command.tag) if isinstance(line, str) else line for line in lines))
        return True

    return Fault(pattern, command=hook, on=pattern, times=times)


def before(pattern: str, data: bytes, times: int = 0) -> Fault:
    """Return a fault that says something unasked for, and then what was asked for."""

    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.send(data)
        await dialog.obey(command)
        return True

    return Fault(pattern, command=hook, on=pattern, times=times)


def after(pattern: str, data: bytes, times: int = 1) -> Fault:
    """Return a fault that answers, then says something unasked for in the same breath, and nothing more."""

    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.obey(command)
        await dialog.send(data.replace(b"TAG", command.tag.encode()))
        await dialog.hang()
        return True

    return Fault(pattern, command=hook, on=pattern, times=times)


def deaf(pattern: str) -> Fault:
    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.turn_deaf()
        return True

    return Fault(pattern, command=hook, on=pattern)


def answers_after(pattern: str, count: int) -> Fault:
    """Return a fault that does what it was told and resets the connection `count` bytes into the answer."""

    async def hook(dialog: Dialog, command: Command) -> bool:
        dialog.cut_after(count)
        await dialog.obey(command)
        return True

    return Fault(pattern, command=hook, on=pattern)


FETCH_BODY: Final = r"UID FETCH .*BODY(\.PEEK)?\[\]"
INBOX: Final = '"?INBOX"?'
MILLIONS: Final = "* ESEARCH UID ALL 1:4999999"
LISTING: Final = r"UID (SEARCH|FETCH .*RFC822\.SIZE)"


# --- in IDLE ---------------------------------------------------------------------------------------------------------


async def idle_without_a_word(dialog: Dialog, command: Command) -> bool:
    await dialog.hang()
    return True


async def ignore_done(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling")
    await dialog.until_done()
    await dialog.hang()
    return True


async def idle_and_forget(dialog: Dialog, command: Command) -> bool:
    """Say nothing of what comes; end properly."""
    await dialog.say("+ idling")
    await dialog.line()
    await dialog.done(command)
    return True


async def goodbye_in_idle(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling", "* BYE idle for too long")
    await dialog.hang()
    return True


async def goodbye_after_done(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling")
    await dialog.until_done()
    await dialog.say("* BYE now that you are back")
    await dialog.hang()
    return True


async def drip_in_idle(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling")
    await dialog.drip(b"* OK still here, still here, " + b"x" * 5_000, NOW_AND_THEN)
    return True


async def flood_in_idle(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling")
    await dialog.send(b"".join(b"* %d EXISTS\r\n" % (number % 7) for number in range(10_000)))
    await dialog.until_done()
    await dialog.done(command)
    return True


async def noise_in_idle(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling")
    await dialog.send(GARBAGE)
    await dialog.until_done()
    await dialog.done(command)
    return True


async def end_idle_at_once(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling", f"{command.tag} OK that was it")
    return True


def idle(name: str, hook: Callable[[Dialog, Command], Awaitable[bool]], times: int = 1) -> Fault:
    return Fault(name, command=hook, on="IDLE", times=times)


# --- garbage ---------------------------------------------------------------------------------------------------------

GARBAGE: Final = b"\r\n".join(
    (
        b"",
        b"*",
        b"* ",
        b"* OK",
        b"+ what?",
        b"NOTATAG whatever",
        b"* 99999999999999999999999999 EXISTS",
        b"* -1 EXISTS",
        b"* 4294967296 EXPUNGE",
        b"* 0 FETCH (UID 0 RFC822.SIZE 0)",
        b"* 1 FETCH (UID 99999999999 RFC822.SIZE 18446744073709551616)",
        b"* 1 FETCH (UID -5 FLAGS ())",
        b"* 1 FETCH ((((((",
        b"* 1 FETCH (UID 1 FLAGS (\\Seen",
        b"* 1 FETCH )))",
        b"* 1 FETCH " + b"(" * 5_000,
        b'* 1 FETCH (UID 1 INTERNALDATE "99-Foo-0000 99:99:99 +9999")',
        b'* 1 FETCH (UID 1 BODY[] "unterminated)',
        b"* X-UNHEARD-OF (nonsense) {",
        b"* FLAGS (((",
        b"* LIST () NIL",
        b'* LIST (\\Junk \\Sent) "/" {9999999999999}x',
        b"* STATUS",
        b"* STATUS INBOX (UIDNEXT 99999999999999999999 UIDVALIDITY -1",
        b"* ESEARCH (TAG",
        b"* VANISHED (EARLIER) 1:99999999999",
        b"* OK [",
        b"* OK [UIDNEXT 99999999999999999999] so many",
        b"* OK [HIGHESTMODSEQ -1] so few",
        b"* NO [ALERT] \xff\xfe\x00 \x1b[31mred\x1b[0m",
        b"* BAD who is there?",
        bytes(range(14, 256)),
        bytes(255 - number % 240 for number in range(3_000)),
        b"",
    )
)
UNASKED: Final = b"".join(b"* 1 FETCH (UID 1 FLAGS (\\Seen $Label%d))\r\n" % number for number in range(3_000))
EXISTS: Final = b"".join(b"* %d EXISTS\r\n" % number for number in range(10_000))


def unasked(make: Callable[[Dialog], bytes]) -> Fault:
    """Return a fault that puts FETCH responses before those that were asked for."""

    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.send(make(dialog))
        await dialog.obey(command)
        return True

    return Fault("unasked", command=hook, on="UID FETCH", times=0)


def other_messages(dialog: Dialog) -> bytes:
    """Everything that the folder has, and something that it has not, whole."""
    assert dialog.folder is not None
    names = [b"UID", b"RFC822.SIZE", b"INTERNALDATE", b"BODY.PEEK[]"]
    real = [uid for uid, message in dialog.folder.messages.items() if not message.quirk and uid in dialog.told][-5:]
    lines = [dialog.show(uid, names) for uid in real]
    forged = Message(b"From: nobody@nowhere.example\r\nSubject: not asked for\r\nMessage-ID: <forged@x>\r\n\r\nno\r\n")
    items = b" ".join(b" ".join(fetched(name, 4_000_000_000, forged)) for name in names)
    return b"\r\n".join((*lines, b"* 77 FETCH (" + items + b")", b""))


# --- listings that lie -----------------------------------------------------------------------------------------------


def finds(see: Callable[[list[int]], list[int]], times: int = 1) -> Fault:
    return Fault("finds", found=lambda dialog, uids: see(uids), times=times)


# --- folders ---------------------------------------------------------------------------------------------------------


def renumber(dialog: Dialog) -> None:
    folder = dialog.folder
    assert folder is not None
    folder.renumber(start=7)
    dialog.told, dialog.uidvalidity = list(folder.messages), folder.uidvalidity


async def renumber_in_mid_session(dialog: Dialog, command: Command) -> bool:
    """The numbers change under the client, which is told so beside an answer; the session goes on."""
    renumber(dialog)
    assert dialog.folder is not None
    await dialog.say(f"* OK [UIDVALIDITY {dialog.folder.uidvalidity}] all new")
    await dialog.obey(command)
    return True


async def renumber_in_idle(dialog: Dialog, command: Command) -> bool:
    await dialog.say("+ idling")
    renumber(dialog)
    assert dialog.folder is not None
    await dialog.say(f"* OK [UIDVALIDITY {dialog.folder.uidvalidity}] all new", f"* {len(dialog.told)} EXISTS")
    await dialog.until_done()
    await dialog.done(command)
    return True


async def renumber_before_opening(dialog: Dialog, command: Command) -> bool:
    dialog.server.folders["INBOX"].renumber(start=3)
    await dialog.obey(command)
    return True


def expunge_the_last(dialog: Dialog) -> None:
    assert dialog.folder is not None
    dialog.folder.messages.popitem()


async def expunge_while_fetching(dialog: Dialog, command: Command) -> bool:
    """The last message goes between its listing and its FETCH, which is answered OK, without it and about it."""
    assert dialog.folder is not None
    expunge_the_last(dialog)
    await dialog.obey(command)
    return True


# --- capabilities ----------------------------------------------------------------------------------------------------


def without(dialog: Dialog, *names: str) -> str:
    return " ".join(name for name in dialog.capabilities.split() if name not in names)


async def lose_capabilities(dialog: Dialog, command: Command) -> bool:
    """IDLE, ESEARCH, UIDPLUS and MOVE are gone, which is said behind an answer; from now on they are refused."""
    await dialog.obey(command)
    await dialog.say(f"* CAPABILITY {without(dialog, *_LOST)}")
    dialog.capabilities = without(dialog, *_LOST)
    return True


async def change_capabilities_at_login(dialog: Dialog, command: Command) -> bool:
    """The greeting has offered them; whoever is logged in does not have them."""
    dialog.capabilities = without(dialog, *_LOST)
    await dialog.obey(command)
    return True


async def gain_capabilities(dialog: Dialog, command: Command) -> bool:
    """What nobody here can do is offered of a sudden."""
    await dialog.say(f"* CAPABILITY {dialog.capabilities} QRESYNC CONDSTORE COMPRESS=DEFLATE X-NEW UIDONLY")
    await dialog.obey(command)
    return True


_LOST: Final = ("IDLE", "ESEARCH", "UIDPLUS", "MOVE")

# --- quirks of messages ----------------------------------------------------------------------------------------------


def asks_for_body(names: Sequence[bytes]) -> bool:
    return any(name.startswith((b"BODY[]", b"BODY.PEEK[]")) for name in names)


def asks_for_text(names: Sequence[bytes]) -> bool:
    """Whether any of the message itself is wanted, be it its header alone."""
    return any(name.startswith((b"BODY", b"ENVELOPE", b"RFC822.HEADER")) for name in names)


def refuses(answer: str, *, blind: bool = False) -> Quirk:
    """The whole FETCH ends so because of this message; the others are given. `blind`: not even its header comes."""

    async def quirk(dialog: Dialog, uid: int, names: Sequence[bytes]) -> str | bool:
        return answer if (asks_for_text if blind else asks_for_body)(names) else False

    return quirk


def is_not_shown(dialog: Dialog, uid: int, names: Sequence[bytes]) -> Awaitable[str | bool]:
    """SEARCH knows of it, FETCH does not."""

    async def nothing() -> str | bool:
        return True

    return nothing()


def has_body(value: Callable[[bytes], bytes]) -> Quirk:
    """Its BODY[] is what `value` makes of the text, in a response that is otherwise as it should be."""

    async def quirk(dialog: Dialog, uid: int, names: Sequence[bytes]) -> str | bool:
        if not asks_for_body(names):
            return False
        assert dialog.folder is not None
        message = dialog.folder.messages[uid]
        items = []
        for name in names:
            shown, honest = fetched(name, uid, message)
            items.append(shown + b" " + (value(message.raw) if shown.startswith(b"BODY[]") else honest))
        await dialog.say(b"* %d FETCH (%b)" % (dialog.told.index(uid) + 1, b" ".join(items)))
        return True

    return quirk


def nil(raw: bytes) -> bytes:
    return b"NIL"


def empty(raw: bytes) -> bytes:
    return literal(b"")


def longer_than_announced(raw: bytes) -> bytes:
    return b"{%d}\r\n%b\r\n* 3 EXISTS\r\nwhat is this\r\n%b" % (len(raw), raw, b"spill " * 100)


def shorter_than_announced(raw: bytes) -> bytes:
    return b"{%d}\r\n%b" % (len(raw) + 5_000, raw)


def announced_as(size: int) -> Callable[[bytes], bytes]:
    return lambda raw: b"{%d}\r\n%b" % (size, raw)


def cuts_the_link(count: int) -> Quirk:
    """The connection is reset so many bytes into the text."""

    async def quirk(dialog: Dialog, uid: int, names: Sequence[bytes]) -> str | bool:
        if not asks_for_body(names):
            return False
        dialog.cut_after(count)
        return False

    return quirk


# --- the trials ------------------------------------------------------------------------------------------------------


def drips_a_literal() -> Fault:
    async def hook(dialog: Dialog, command: Command) -> bool:
        assert dialog.folder is not None
        uid = max(dialog.told)
        raw = dialog.folder.messages[uid].raw
        await dialog.send(b"* %d FETCH (UID %d BODY[] {%d}\r\n" % (len(dialog.told), uid, len(raw)))
        await dialog.drip(raw, NOW_AND_THEN)
        return True

    return Fault("drips", command=hook, on=FETCH_BODY)


def half_a_literal(goodbye: bytes = b"") -> Fault:
    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.send(b"* 1 FETCH (UID %d BODY[] {3000}\r\nFrom: half a header%b" % (max(dialog.told), goodbye))
        await dialog.hang()
        return True

    return Fault("half", command=hook, on=FETCH_BODY)


def swallowed_answer() -> Fault:
    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.send(b"* X-JUNK {50000}\r\n")
        await dialog.obey(command)
        await dialog.hang()
        return True

    return Fault("swallows", command=hook, on=LISTING)


def answers_twice() -> Fault:
    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.obey(command)
        await dialog.say(f"{command.tag} OK and once more")
        return True

    return Fault("twice", command=hook, on=LISTING)


def endless_search() -> Fault:
    async def hook(dialog: Dialog, command: Command) -> bool:
        await dialog.send(b"* SEARCH")
        while True:
            await dialog.send(b" 4294967295" * 10_000)
            await asyncio.sleep(0)

    return Fault("endless", command=hook, on="UID SEARCH")


BYE: Final = "* BYE for no reason"

TRIALS: Final[tuple[Trial, ...]] = (
    # connecting
    Trial("half-open: nothing after the SYN", lambda: [Fault("silent", opening=say_nothing)]),
    Trial("reset instead of a TLS handshake", lambda: [Fault("reset", opening=reset)]),
    Trial("plain text where TLS is due", lambda: [Fault("plain", opening=speak_plain_text)]),
    Trial("garbage in the TLS handshake", lambda: [Fault("handshake", opening=break_the_handshake)]),
    Trial("half-open: nothing after TLS", lambda: [Fault("silent", greeting=say_nothing)]),
    Trial("BYE as a greeting", lambda: [Fault("bye", greeting=greet("* BYE come back later"))]),
    Trial("another protocol's greeting", lambda: [Fault("smtp", greeting=greet("220 mx.example ESMTP"))]),
    Trial("garbage as a greeting", lambda: [Fault("garbage", greeting=greet(GARBAGE))]),
    Trial("PREAUTH", lambda: [Fault("preauth", greeting=greet("* PREAUTH welcome, whoever"))]),
    Trial("a greeting byte by byte", lambda: [Fault("slow", greeting=greet_slowly)]),
    Trial("a greeting without end", lambda: [Fault("endless", greeting=greet_without_end)]),
    # logging in
    Trial("BYE before the login", lambda: [Fault("bye", greeting=greet_and_leave)]),
    Trial("BYE at the login", lambda: [at("AUTHENTICATE|LOGIN", BYE)]),
    Trial("BYE behind the login", lambda: [after("AUTHENTICATE|LOGIN", b"* BYE too many\r\n")]),
    Trial("no answer to the login", lambda: [at("AUTHENTICATE|LOGIN")]),
    Trial("NO [UNAVAILABLE] at the login", lambda: [answers("AUTHENTICATE|LOGIN", "TAG NO [UNAVAILABLE] later")]),
    Trial("the login is refused once", lambda: [answers("AUTHENTICATE|LOGIN", "TAG NO [AUTHENTICATIONFAILED] no")]),
    Trial("BAD to ENABLE", lambda: [answers("ENABLE", "TAG BAD never heard of it")], flows=True),
    Trial("BYE in ENABLE", lambda: [at("ENABLE", BYE)]),
    Trial("BAD to ID", lambda: [answers("ID", "TAG BAD never heard of it")], flows=True),
    # folders
    Trial("BYE in SELECT", lambda: [at("EXAMINE|SELECT", BYE)]),
    Trial("NO to SELECT", lambda: [answers("EXAMINE|SELECT", "TAG NO [UNAVAILABLE] index is being rebuilt")]),
    Trial("no answer to SELECT", lambda: [at("EXAMINE|SELECT")]),
    Trial("SELECT without UIDVALIDITY", lambda: [answers("EXAMINE|SELECT", "* 5 EXISTS", "TAG OK")]),
    Trial(
        "SELECT with absurd numbers",
        lambda: [
            answers(
                "EXAMINE|SELECT",
                "* 99999999999999999999 EXISTS",
                "* OK [UIDVALIDITY 99999999999999] x",
                "* OK [UIDNEXT -3] x",
                "TAG OK",
            )
        ],
    ),
    Trial("NO to LIST", lambda: [answers("LIST", "TAG NO [SERVERBUG] no list today")], flows=True),
    Trial("garbage in LIST", lambda: [before("LIST", GARBAGE, times=1)], flows=True),
    Trial(
        "3,000 folders",
        lambda: [before("LIST", b"".join(b'* LIST () "/" "f%d"\r\n' % n for n in range(3_000)), times=1)],
        flows=True,
    ),
    Trial("BYE in LIST", lambda: [at("LIST", BYE)]),
    Trial("NO to STATUS", lambda: [answers("STATUS", "TAG NO not now")], "mail", flows=True),
    Trial(
        "STATUS with absurd numbers",
        lambda: [
            answers("STATUS", '* STATUS "Junk" (UIDVALIDITY 0 UIDNEXT 99999999999 MESSAGES -1)', "* STATUS (", "TAG OK")
        ],
        "mail",
    ),
    Trial("BYE in STATUS", lambda: [at("STATUS", BYE)], "mail"),
    Trial("no answer to STATUS", lambda: [at("STATUS")], "mail"),
    # listings
    Trial("BYE in SEARCH", lambda: [at("UID SEARCH", BYE)], "mail"),
    Trial("no answer to SEARCH", lambda: [at("UID SEARCH")], "mail"),
    Trial("NO to SEARCH", lambda: [answers("UID SEARCH", "TAG NO [INUSE] busy")], "mail"),
    Trial("BAD to SEARCH", lambda: [answers("UID SEARCH", "TAG BAD what?")], "mail"),
    Trial("a SEARCH answer without end", lambda: [endless_search()], "mail"),
    Trial("SEARCH sees nothing", lambda: [finds(lambda uids: [], times=2)], "mail"),
    Trial("SEARCH sees only the last", lambda: [finds(lambda uids: uids[-1:], times=2)], "mail"),
    Trial("SEARCH sees every other", lambda: [finds(lambda uids: uids[1::2], times=2)], "mail"),
    Trial(
        "SEARCH sees what is not there",
        lambda: [finds(lambda uids: [*uids, *range((uids or [0])[-1] + 50, (uids or [0])[-1] + 90)], times=2)],
        "mail",
    ),
    Trial("SEARCH sees five million", lambda: [answers("UID SEARCH", "* SEARCH", MILLIONS, "TAG OK")], "mail"),
    Trial(
        "SEARCH answers in disorder",
        lambda: [
            answers(
                "UID SEARCH", "* SEARCH 3 3 2 0 -1 1 x 99999999999", "* SEARCH", "* ESEARCH UID ALL 9:2,*:*,,", "TAG OK"
            )
        ],
        "mail",
    ),
    Trial("NO to the listing", lambda: [answers(r"UID FETCH .*RFC822\.SIZE", "TAG NO System Error")], "mail"),
    Trial("BYE in the listing", lambda: [at(r"UID FETCH .*RFC822\.SIZE", BYE)], "mail"),
    Trial("RFC822.SIZE is 0", begins="mail", flows=True, lies={b"RFC822.SIZE": b"0"}),
    Trial("RFC822.SIZE is too small", begins="mail", flows=True, lies={b"RFC822.SIZE": b"10"}),
    Trial("INTERNALDATE is garbage", begins="mail", flows=True, lies={b"INTERNALDATE": b'"31-Feb-1900 99:00"'}),
    Trial("INTERNALDATE is NIL", begins="mail", flows=True, lies={b"INTERNALDATE": b"NIL"}),
    Trial("RFC822.SIZE is NIL", begins="mail", flows=True, lies={b"RFC822.SIZE": b"NIL"}),
    # bodies
    Trial("BYE in FETCH", lambda: [at(FETCH_BODY, BYE)], "mail"),
    Trial("BYE in the middle of a literal", lambda: [half_a_literal(b"\r\n* BYE sorry\r\n")], "mail"),
    Trial("half a literal, then silence", lambda: [half_a_literal()], "mail"),
    Trial("a literal byte by byte", lambda: [drips_a_literal()], "mail"),
    Trial("reset at the 1st byte", lambda: [answers_after(FETCH_BODY, 1)], "mail"),
    Trial("reset at the 200th byte", lambda: [answers_after(FETCH_BODY, 200)], "mail"),
    Trial("no answer to FETCH", lambda: [at(FETCH_BODY)], "mail"),
    Trial("stops reading", lambda: [deaf(LISTING)], "mail"),
    Trial("NO to FETCH", lambda: [answers(FETCH_BODY, "TAG NO [UNAVAILABLE] later", times=2)], "mail"),
    Trial("OK to FETCH, and no text", lambda: [answers(FETCH_BODY, "TAG OK")], "mail"),
    Trial(
        "expunged while fetching",
        lambda: [Fault("expunged", command=expunge_while_fetching, on=FETCH_BODY)],
        "mail",
        flows=True,
    ),
    # answers out of step
    Trial("two tagged answers", lambda: [answers_twice()], "mail"),
    Trial("a wrong tag", lambda: [at(LISTING, "ZZ99 OK for somebody else")], "mail"),
    Trial("an unknown response swallows the answer", lambda: [swallowed_answer()], "mail"),
    # what nobody asked for
    Trial("garbage beside every answer", lambda: [before("UID|NOOP|STATUS", GARBAGE)], "mail", flows=True),
    Trial("3,000 lines in one packet", lambda: [before("UID", UNASKED)], "mail", flows=True),
    Trial("10,000 EXISTS beside an answer", lambda: [before("UID", EXISTS, times=2)], "mail", flows=True),
    Trial("other messages than those asked for", lambda: [unasked(other_messages)], "mail", flows=True),
    Trial("everything vanishes, it is said", lambda: [before("UID", b"* VANISHED 1:4294967295\r\n", 2)], "mail"),
    # IDLE
    Trial("no answer to IDLE", lambda: [idle("silent", idle_without_a_word)]),
    Trial("no answer to DONE", lambda: [idle("ignores DONE", ignore_done)], "mail"),
    Trial("IDLE tells nothing", lambda: [idle("forgets", idle_and_forget, times=0)], flows=True),
    Trial("IDLE is refused", lambda: [answers("IDLE", "TAG NO not for you", times=0)], flows=True),
    Trial("IDLE ends at once", lambda: [idle("ends", end_idle_at_once, times=0)], flows=True),
    Trial("BYE in IDLE", lambda: [idle("bye", goodbye_in_idle)]),
    Trial("BYE after DONE", lambda: [idle("bye", goodbye_after_done)], "mail"),
    Trial("IDLE byte by byte", lambda: [idle("drips", drip_in_idle)]),
    Trial("10,000 EXISTS in IDLE", lambda: [idle("floods", flood_in_idle, times=2)], flows=True),
    Trial("garbage in IDLE", lambda: [idle("garbage", noise_in_idle, times=2)], flows=True),
    # capabilities
    Trial(
        "capabilities go after the login",
        lambda: [Fault("go", command=change_capabilities_at_login, on="AUTHENTICATE|LOGIN", times=0)],
        flows=True,
    ),
    Trial(
        "capabilities go in mid-session",
        lambda: [Fault("go", command=lose_capabilities, on="UID", times=0)],
        flows=True,
    ),
    Trial(
        "capabilities come in mid-session",
        lambda: [Fault("come", command=gain_capabilities, on="UID", times=0)],
        flows=True,
    ),
    # numbers
    Trial(
        "UIDVALIDITY changes between sessions",
        lambda: [Fault("new", command=renumber_before_opening, on=f"(EXAMINE|SELECT) {INBOX}")],
        flows=True,
    ),
    Trial("UIDVALIDITY changes in mid-session", lambda: [Fault("new", command=renumber_in_mid_session, on="UID")]),
    Trial("UIDVALIDITY changes in IDLE", lambda: [idle("new", renumber_in_idle)]),
    # leaving
    Trial("BYE in LOGOUT", lambda: [at("LOGOUT", BYE, times=0)], "reload"),
    Trial("no answer to LOGOUT", lambda: [at("LOGOUT", times=0)], "reload"),
)
