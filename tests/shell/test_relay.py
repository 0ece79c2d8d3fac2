"""One connection and its transactions against a provider that plays a script, on real sockets."""

from __future__ import annotations

import asyncio
import gc
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pytest
import uvloop

from gateway.config.values import Server
from gateway.connections.reach import tls_context
from gateway.model import NO_WISH, Fate, Notify, Phase, Wish
from gateway.outbound.outcome import Cause, Transcript, decide
from gateway.outbound.relay import Letter, Link, Login, NoLink, Offer, Timeouts, connect, is_sendable, stuff
from gateway.outbound.wire import LinkLost, read_reply
from gateway.state import offers
from gateway.state.lifecycle import LaneEvent
from tests.support.authority import Authority
from tests.support.scripted import CUT, HANG, Script, ScriptedProvider
from tests.support.waiting import wait_until

T = TypeVar("T")
HEAD = b"Received: by gateway.example (mail-gateway) id 1r7hq2x0.1;\r\n\tMon, 23 Nov 2026 12:00:00 +0000\r\n"
BODY = b"From: support@example.com\r\nSubject: hello\r\n\r\nDear customer,\r\n.\r\n..\r\n.dot\r\n"
BRISK = Timeouts(dial=5, tls=5, greeting=5, command=5, data=5, block=5, dot=5)
FRIENDLY: Script = lambda phase, argument, session: None  # noqa: E731
LOOPS = pytest.mark.parametrize(
    "loop_factory", [uvloop.new_event_loop, asyncio.new_event_loop], ids=["uvloop", "asyncio"]
)


def says(**replies: str) -> Script:
    """A script that answers some phases with a reply of its own, each time."""
    return lambda phase, argument, session: replies.get(phase)


async def no_chunks(number: int) -> bytes | None:
    return None


LETTER = Letter("support@example.com", ("b@clients.example",), False, False, HEAD, len(BODY), BODY, no_chunks)


def run(coroutine: Awaitable[T], loop_factory: Callable[[], Any] = uvloop.new_event_loop) -> T:
    with asyncio.Runner(loop_factory=loop_factory) as runner:

        async def main() -> T:
            return await coroutine

        return runner.run(main())


@asynccontextmanager
async def linked(provider: ScriptedProvider, scheme: str = "smtp+insecure", **changes: Any) -> AsyncIterator[Link]:
    """A connection that is gone at the end, also from the loop."""
    host = "127.0.0.1" if scheme.endswith("+insecure") else "localhost"
    options = {"hostname": "gateway.example", "login": None, "tls": None, "timeouts": BRISK, **changes}
    link = await connect(Server(scheme, host, provider.port), **options)
    try:
        yield link
    finally:
        await ended(link)


async def ended(link: Link) -> None:
    link.close()
    await link.wire.gone(5)
    await asyncio.sleep(0.01)  # the transport's own last callbacks


async def began(taken: Sequence[int]) -> bool:
    return True


async def transact_once(provider: ScriptedProvider, letter: Letter = LETTER, **changes: Any) -> Transcript:
    async with linked(provider, **changes) as link:
        transcript = await link.transact(letter, began)
    assert transcript is not None
    return transcript


# --- connections -----------------------------------------------------------------------------------------------------


@LOOPS
@pytest.mark.parametrize("scheme", ["smtp+insecure", "smtp", "smtps"])
def test_each_scheme_logs_in_and_sends(authority: Authority, scheme: str, loop_factory: Callable[[], Any]) -> None:
    pair = authority.issue(f"relay-{scheme.replace('+', '-')}")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.certificate, pair.private_key)
    secure = scheme != "smtp+insecure"
    with ScriptedProvider(tls=server if secure else None, starttls=scheme == "smtp") as provider:
        tls = authority.client_context() if secure else None
        link_options = {"tls": tls, "login": Login("support", "secret")}

        async def play() -> list[Transcript | None]:
            async with linked(provider, scheme, **link_options) as link:
                return [await link.transact(LETTER, began) for _ in range(3)]

        transcripts = run(play(), loop_factory)
        assert [decide(t).judged[0].outcome.fate for t in transcripts if t] == [Fate.ACCEPTED] * 3
        assert [taken.raw for taken in provider.taken] == [HEAD + BODY] * 3
        assert [taken.session for taken in provider.taken] == [1, 1, 1]
        assert any(command.startswith("AUTH PLAIN ") for command in provider.sessions[0].commands)


def no_link(provider: ScriptedProvider, scheme: str = "smtp+insecure", **changes: Any) -> NoLink:
    async def play() -> None:
        async with linked(provider, scheme, **changes):
            pass

    with pytest.raises(NoLink) as caught:
        run(play())
    assert "\n" not in caught.value.trouble.detail
    return caught.value


@pytest.mark.parametrize(
    ("script", "event", "cause", "phase"),
    [
        (says(greeting="554 5.3.2 not here"), LaneEvent.PAUSE, Cause.UNREACHABLE, Phase.CONNECT),
        (says(greeting="421 4.3.2 too many connections"), LaneEvent.PAUSE, Cause.THROTTLED, Phase.CONNECT),
        (says(greeting=CUT), LaneEvent.PAUSE, Cause.UNREACHABLE, Phase.CONNECT),
        (says(ehlo="421 4.3.2 bye"), LaneEvent.PAUSE, Cause.THROTTLED, Phase.CONNECT),
        (says(ehlo=CUT), LaneEvent.PAUSE, Cause.UNREACHABLE, Phase.CONNECT),
        (says(auth="535 5.7.8 wrong"), LaneEvent.HOLD, Cause.LOGIN, Phase.LOGIN),
        (says(auth="454 4.7.0 not now"), LaneEvent.PAUSE, Cause.LOGIN, Phase.LOGIN),
        (says(auth=CUT), LaneEvent.PAUSE, Cause.UNREACHABLE, Phase.CONNECT),
    ],
    ids=["greeting-554", "greeting-421", "greeting-cut", "ehlo-421", "ehlo-cut", "auth-535", "auth-454", "auth-cut"],
)
def test_what_keeps_us_from_mail_is_about_the_lane(
    script: Script, event: LaneEvent, cause: Cause, phase: Phase
) -> None:
    with ScriptedProvider(script) as provider:
        no = no_link(provider, login=Login("support", "secret"))
        assert (no.trouble.event, no.trouble.cause, no.phase) == (event, cause, phase)
        assert "secret" not in no.trouble.detail


def test_a_server_that_is_not_there_is_named() -> None:
    with ScriptedProvider() as provider:
        pass
    no = no_link(provider)
    assert no.trouble.cause is Cause.UNREACHABLE
    assert f"127.0.0.1:{provider.port}" in no.trouble.detail
    assert "refused" in no.trouble.detail


@pytest.mark.parametrize("phase", ["greeting", "ehlo", "auth"])
def test_a_server_that_falls_silent_is_given_up(phase: str) -> None:
    with ScriptedProvider(says(**{phase: HANG})) as provider:
        brisk = replace(BRISK, greeting=0.2, command=0.2)
        no = no_link(provider, login=Login("support", "secret"), timeouts=brisk)
        assert no.trouble.cause is Cause.UNREACHABLE
        assert "in time" in no.trouble.detail


@LOOPS
@pytest.mark.parametrize("scheme", ["smtp+insecure", "smtps"])
def test_a_dial_that_is_cancelled_leaves_nothing_behind(
    authority: Authority, scheme: str, loop_factory: Callable[[], Any]
) -> None:
    """A server that takes the connection and says nothing: neither a greeting nor a TLS handshake."""
    with ScriptedProvider(says(greeting=HANG)) as provider:
        server = Server(scheme, "localhost" if scheme == "smtps" else "127.0.0.1", provider.port)

        async def play() -> None:
            tls = authority.client_context() if scheme == "smtps" else None
            dial = asyncio.create_task(connect(server, hostname="gateway.example", login=None, tls=tls, timeouts=BRISK))
            async with asyncio.timeout(5):
                while not provider.open_connections:  # noqa: ASYNC110 - the provider is in another thread
                    await asyncio.sleep(0.01)
            dial.cancel()
            with pytest.raises(asyncio.CancelledError):
                await dial
            await asyncio.sleep(0.01)

        run(play(), loop_factory)
        gc.collect()  # a socket that was left behind warns here, and warnings are errors
        wait_until(lambda: provider.open_connections == 0, "the connection is gone")


def test_a_login_is_tried_once_with_one_mechanism() -> None:
    with ScriptedProvider(says(auth="535 5.7.8 wrong")) as provider:
        no_link(provider, login=Login("support", "secret"))
        (session,) = provider.sessions
        assert len([command for command in session.commands if command.startswith("AUTH")]) == 1


def test_a_server_without_a_login_is_used_without_one() -> None:
    with ScriptedProvider(extensions=("PIPELINING",)) as provider:
        transcript = run(transact_once(provider, login=Login("support", "secret")))
        assert decide(transcript).judged[0].outcome.fate is Fate.ACCEPTED
        assert not [command for command in provider.sessions[0].commands if command.startswith("AUTH")]


def test_nothing_is_sent_in_the_clear_where_tls_is_asked_for(authority: Authority) -> None:
    with ScriptedProvider() as provider:
        no = no_link(provider, "smtp", tls=authority.client_context(), login=Login("support", "secret"))
        assert no.trouble.event is LaneEvent.HOLD
        assert "STARTTLS" in no.trouble.detail
        assert not [command for command in provider.sessions[0].commands if command.startswith("AUTH")]


@pytest.mark.parametrize("scheme", ["smtp", "smtps"])
@pytest.mark.parametrize("trouble", ["expired", "unknown"])
def test_a_certificate_that_does_not_hold_holds_the_lane(authority: Authority, scheme: str, trouble: str) -> None:
    pair = authority.issue(f"relay-{scheme}-{trouble}", expired=trouble == "expired")
    server = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    server.load_cert_chain(pair.certificate, pair.private_key)
    trusted = authority.client_context() if trouble == "expired" else tls_context(None)
    with ScriptedProvider(tls=server, starttls=scheme == "smtp") as provider:
        no = no_link(provider, scheme, tls=trusted, login=Login("support", "secret"))
        assert (no.trouble.event, no.trouble.cause) == (LaneEvent.HOLD, Cause.CERTIFICATE)
        assert {"expired": "expired", "unknown": "ca_file"}[trouble] in no.trouble.detail
        assert not [command for session in provider.sessions for command in session.commands if "AUTH" in command]


# --- transactions ----------------------------------------------------------------------------------------------------

WITH_AND_WITHOUT_PIPELINING = pytest.mark.parametrize(
    "extensions", [("PIPELINING", "SIZE 1000000"), ("SIZE 1000000",)], ids=["pipelining", "one-by-one"]
)


@WITH_AND_WITHOUT_PIPELINING
@pytest.mark.parametrize(
    ("phase", "said", "fate"),
    [
        ("mail", "451 4.3.0 later", Fate.DEFERRED),
        ("mail", "552 5.3.4 too big", Fate.REFUSED),
        ("rcpt", "450 4.2.0 greylisted", Fate.DEFERRED),
        ("rcpt", "550 5.1.1 unknown", Fate.REFUSED),
        ("data", "451 4.3.0 later", Fate.DEFERRED),
        ("data", "554 5.5.1 no", Fate.REFUSED),
        ("dot", "451 4.3.0 later", Fate.DEFERRED),
        ("dot", "554 5.6.0 no", Fate.REFUSED),
    ],
)
def test_after_a_no_in_any_phase_the_connection_is_in_step(
    extensions: tuple[str, ...], phase: str, said: str, fate: Fate
) -> None:
    times = iter([said])
    script: Script = lambda at, argument, session: next(times, None) if at == phase else None  # noqa: E731
    with ScriptedProvider(script, extensions=extensions) as provider:

        async def play() -> tuple[Transcript | None, Transcript | None, Transcript | None]:
            async with linked(provider) as link:
                return (await link.transact(LETTER, began), await link.transact(LETTER, began),
                        await link.transact(LETTER, began))  # fmt: skip

        first, *others = run(play())
        assert first is not None
        decision = decide(first)
        assert decision.judged[0].outcome.fate is fate
        assert str(decision.judged[0].outcome.reply) == said
        assert decision.is_reusable
        assert [decide(t).judged[0].outcome.fate for t in others if t] == [Fate.ACCEPTED, Fate.ACCEPTED]
        assert len(provider.sessions) == 1
        sent = [taken.raw for taken in provider.taken]
        assert sent == [HEAD + BODY] * (3 if phase == "dot" else 2)


@WITH_AND_WITHOUT_PIPELINING
@pytest.mark.parametrize(
    ("phase", "lost", "dotted"),
    [("mail", CUT, False), ("rcpt", CUT, False), ("data", CUT, False), ("dot", CUT, True), ("dot", HANG, True),
     ("mail", HANG, False), ("rcpt", HANG, False), ("data", HANG, False)],
)  # fmt: skip
def test_a_link_that_is_lost_is_known_to_the_dot(
    extensions: tuple[str, ...], phase: str, lost: str, dotted: bool
) -> None:
    brisk = replace(BRISK, command=0.3, data=0.3, dot=0.3) if lost == HANG else BRISK
    with ScriptedProvider(says(**{phase: lost}), extensions=extensions) as provider:
        transcript = run(transact_once(provider, timeouts=brisk))
        assert transcript.dotted is dotted
        assert transcript.lost is not None
        assert ("in time" in transcript.lost) == (lost == HANG)
        fate = decide(transcript).judged[0].outcome.fate
        assert fate is (Fate.UNCERTAIN if dotted else Fate.DEFERRED)


def large(size: int) -> Letter:
    body = b"Subject: large\r\n\r\n" + (b"." + b"x" * 75 + b"\r\n") * (size // 78)
    parts = [body[start : start + 100_000] for start in range(0, len(body), 100_000)]

    async def read_chunk(number: int) -> bytes | None:
        return parts[number] if number < len(parts) else None

    return replace(LETTER, size=len(body), content=None, read_chunk=read_chunk)


def whole(letter: Letter) -> bytes:
    async def gather() -> bytes:
        parts, number = [HEAD], 0
        while (part := await letter.read_chunk(number)) is not None:
            parts.append(part)
            number += 1
        return b"".join(parts)

    return run(gather())


def test_a_large_message_goes_chunk_by_chunk_with_every_dot_stuffed() -> None:
    letter = large(3_000_000)
    with ScriptedProvider() as provider:
        transcript = run(transact_once(provider, letter))
        assert decide(transcript).judged[0].outcome.fate is Fate.ACCEPTED
        (taken,) = provider.taken
        assert taken.raw == whole(letter)


@pytest.mark.parametrize("content", [BODY[:-5], None], ids=["cut", "gone"])
def test_half_a_message_is_never_sent(content: bytes | None) -> None:
    with ScriptedProvider() as provider:
        with pytest.raises(RuntimeError, match="bytes of a message"):
            run(transact_once(provider, replace(LETTER, content=content)))
        wait_until(lambda: provider.open_connections == 0, "the connection is dropped")
        assert provider.taken == []


def test_a_cut_in_the_middle_of_a_large_message_is_before_the_dot() -> None:
    with ScriptedProvider(says(content=CUT)) as provider:
        transcript = run(transact_once(provider, large(30_000_000)))
        assert not transcript.dotted
        assert decide(transcript).judged[0].outcome.fate is Fate.DEFERRED
        assert provider.taken == []


def test_a_server_that_stops_reading_is_given_up_before_the_dot() -> None:
    with ScriptedProvider(says(content=HANG)) as provider:

        def stop_reading(phase: str, argument: str, session: Any) -> str | None:
            if phase == "content":
                done.wait(10)
            return None

        done = threading.Event()
        provider.script = stop_reading
        try:
            transcript = run(transact_once(provider, large(30_000_000), timeouts=replace(BRISK, block=0.3)))
        finally:
            done.set()
        assert not transcript.dotted
        assert transcript.lost == "the server stopped reading"


def test_a_no_in_the_middle_of_the_content_is_heard() -> None:
    with ScriptedProvider(says(content="552 5.3.4 that is too much")) as provider:
        transcript = run(transact_once(provider, large(30_000_000)))
        assert not transcript.dotted
        judged = decide(transcript).judged[0]
        assert judged.outcome.fate in (Fate.REFUSED, Fate.DEFERRED)  # a reset may overtake the reply
        if judged.outcome.fate is Fate.REFUSED:
            assert str(judged.outcome.reply) == "552 5.3.4 that is too much"


def test_one_message_to_several_recipients_is_one_transaction() -> None:
    def script(phase: str, argument: str, session: Any) -> str | None:
        return {"no@c.example": "550 5.1.1 unknown", "later@c.example": "450 4.2.0 grey"}.get(argument)

    letter = replace(LETTER, recipients=("yes@c.example", "no@c.example", "later@c.example", "too@c.example"))
    for extensions in (("PIPELINING",), ()):
        with ScriptedProvider(script, extensions=extensions) as provider:
            transcript = run(transact_once(provider, letter))
            fates = [judged.outcome.fate for judged in decide(transcript).judged]
            assert fates == [Fate.ACCEPTED, Fate.REFUSED, Fate.DEFERRED, Fate.ACCEPTED]
            assert [taken.recipients for taken in provider.taken] == [("yes@c.example", "too@c.example")]


def test_a_null_return_path_is_sent_as_one() -> None:
    with ScriptedProvider() as provider:
        run(transact_once(provider, replace(LETTER, return_path="")))
        assert "MAIL FROM:<>" in provider.sessions[0].commands[1]
        assert provider.taken[0].return_path == ""


def test_the_envelope_says_what_the_message_needs_and_only_if_it_is_offered() -> None:
    letter = replace(LETTER, eight_bit=True, smtputf8=True)
    with ScriptedProvider(extensions=("8BITMIME", "SMTPUTF8", "SIZE 5000")) as provider:
        run(transact_once(provider, letter))
        size = len(HEAD) + len(BODY)
        assert provider.sessions[0].commands[1] == f"MAIL FROM:<support@example.com> SIZE={size} BODY=8BITMIME SMTPUTF8"
    with ScriptedProvider(extensions=()) as provider:
        run(transact_once(provider, LETTER))
        assert provider.sessions[0].commands[1] == "MAIL FROM:<support@example.com>"


def test_what_the_server_cannot_take_is_known_before_it_is_sent() -> None:
    with ScriptedProvider(extensions=("SIZE 50",)) as provider:

        async def refusals() -> list[str | None]:
            async with linked(provider) as link:
                letters = (LETTER, replace(LETTER, eight_bit=True, size=1), replace(LETTER, smtputf8=True, size=1))
                said = [link.refusal(replace(letter, head=b"")) for letter in letters]
                return [reply.status if reply else None for reply in said]

        assert run(refusals()) == ["5.3.4", "5.6.3", "5.6.7"]


def test_sending_is_committed_before_data_goes_out() -> None:
    """The provider must not have seen DATA while we still wait for our disk."""
    for extensions in (("PIPELINING",), ()):
        with ScriptedProvider(extensions=extensions) as provider:
            seen: list[list[str]] = []

            async def commit(taken: Sequence[int], provider: Any = provider, seen: Any = seen) -> bool:
                await asyncio.sleep(0.05)
                seen.append(list(provider.sessions[0].commands))
                return True

            async def play(provider: Any = provider, commit: Any = commit) -> None:
                async with linked(provider) as link:
                    await link.transact(LETTER, commit)

            run(play())
            assert [command for command in seen[0] if command == "DATA"] == []
            assert seen[0][-1].startswith("RCPT")
            assert len(provider.taken) == 1


def test_what_is_not_ours_to_send_is_not_sent_and_the_connection_goes_on() -> None:
    async def lost(taken: Sequence[int]) -> bool:
        return False

    with ScriptedProvider() as provider:

        async def play() -> tuple[Transcript | None, Transcript | None]:
            async with linked(provider) as link:
                return await link.transact(LETTER, lost), await link.transact(LETTER, began)

        first, second = run(play())
        assert first is None
        assert second is not None
        assert decide(second).judged[0].outcome.fate is Fate.ACCEPTED
        assert len(provider.taken) == 1
        assert "RSET" in provider.sessions[0].commands


def test_with_sending_committed_the_whole_envelope_and_data_are_one_write() -> None:
    with ScriptedProvider() as provider:

        async def play() -> Transcript | None:
            async with linked(provider) as link:
                return await link.transact(LETTER, None)

        transcript = run(play())
        assert transcript is not None
        assert decide(transcript).judged[0].outcome.fate is Fate.ACCEPTED


@pytest.mark.parametrize("data", ["354 go on", "554 5.5.1 no valid recipients"])
def test_data_that_went_along_for_nobody_is_taken_back(data: str) -> None:
    times = iter(["550 5.1.1 unknown"])

    def script(phase: str, argument: str, session: Any) -> str | None:
        if phase == "rcpt":
            return next(times, None)
        if phase == "data" and not provider.taken and session.taken == 0:
            return data
        return "554 5.5.1 no recipients" if phase == "dot" and session.taken == 1 and data[0] == "3" else None

    with ScriptedProvider(script) as provider:

        async def play() -> list[Transcript | None]:
            async with linked(provider) as link:
                first = await link.transact(LETTER, None)
                provider.script = FRIENDLY
                return [first, await link.transact(LETTER, None)]

        first, second = run(play())
        assert first is not None
        assert second is not None
        assert decide(first).judged[0].outcome.fate is Fate.REFUSED
        assert decide(first).is_reusable
        assert decide(second).judged[0].outcome.fate is Fate.ACCEPTED
        assert [taken.raw for taken in provider.taken] == [HEAD + BODY]


def test_what_a_server_says_unasked_is_nobodys_reply() -> None:
    """A "421 idle too long" must not be taken for the answer to the next MAIL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        async def play() -> str | None:
            loop = asyncio.get_running_loop()
            server.setblocking(False)
            link_task = asyncio.create_task(
                connect(
                    Server("smtp+insecure", "127.0.0.1", server.getsockname()[1]),
                    hostname="g.example",
                    login=None,
                    tls=None,
                    timeouts=BRISK,
                )
            )
            peer, _ = await loop.sock_accept(server)
            with peer:
                await loop.sock_sendall(peer, b"220 hello\r\n")
                await loop.sock_recv(peer, 1000)
                await loop.sock_sendall(peer, b"250 hello\r\n")
                link = await link_task
                assert link.is_alive
                await loop.sock_sendall(peer, b"421 4.4.2 idle for too long\r\n")
                async with asyncio.timeout(5):
                    while link.wire.lost is None:  # noqa: ASYNC110 - as in `ended`
                        await asyncio.sleep(0.01)
                transcript = await link.transact(LETTER, began)
                assert transcript is not None
                assert transcript.mail is None
                await ended(link)
                return transcript.lost

        lost = run(play())
        assert lost is not None
        assert "421" in lost


def test_a_session_is_ended_with_quit() -> None:
    with ScriptedProvider() as provider:

        async def play() -> None:
            async with linked(provider) as link:
                await link.transact(LETTER, began)

        run(play())
        wait_until(lambda: provider.open_connections == 0, "the session is over")
        assert provider.sessions[0].commands[-1] == "QUIT"


# --- details ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "shown"),
    [
        ([b"250 2.0.0 ok\r"], "250 2.0.0 ok"),
        ([b"250"], "250"),
        ([b"550-5.7.1 first\r", b"550-5.7.1 second\r", b"550 5.7.1 third\r"], "550 5.7.1 first second third"),
        ([b"250-a\r", b"251 b\r"], None),
        ([b"hello"], None),
        ([b"99 x"], None),
        ([b"650 x"], None),
        ([b"250 gr\xfc\xdfe"], "250 gr\ufffd\ufffde"),
    ],
    ids=["one-line", "bare", "many-lines", "codes-differ", "words", "short", "sixes", "not-utf8"],
)
def test_a_reply_is_read_or_known_for_none(lines: list[bytes], shown: str | None) -> None:
    reply = read_reply(lines)
    assert (str(reply) if reply else None) == shown


@pytest.mark.parametrize(
    ("address", "fits"),
    [
        ("b@clients.example", True),
        ('"odd one"@clients.example', True),
        ("jürgen@clients.example", False),
        ("b@clients.example>\r\nRCPT TO:<evil@x.example", False),
        ("a b@clients.example", False),
        ("", False),
    ],
)
def test_only_an_address_goes_into_a_command(address: str, fits: bool) -> None:
    assert is_sendable(address, smtputf8=False) is fits
    assert is_sendable("jürgen@clients.example", smtputf8=True)


def test_dots_are_stuffed_at_line_starts_only() -> None:
    assert stuff(b".a\r\n.\r\na.b\r\n", at_line_start=True) == b"..a\r\n..\r\na.b\r\n"
    assert stuff(b".a\r\n.", at_line_start=False) == b".a\r\n.."


def test_a_link_that_was_dropped_says_so_to_whoever_waits() -> None:
    with ScriptedProvider(says(dot=HANG)) as provider:

        async def play() -> Transcript | None:
            async with linked(provider) as link:
                asyncio.get_running_loop().call_later(0.1, link.wire.abort, "the gateway was stopping")
                return await link.transact(LETTER, began)

        transcript = run(play())
        assert transcript is not None
        assert transcript.lost == "the gateway was stopping"
        assert decide(transcript).judged[0].outcome.fate is Fate.UNCERTAIN


def test_nothing_can_be_sent_over_a_lost_link() -> None:
    with ScriptedProvider() as provider:

        async def play() -> None:
            async with linked(provider) as link:
                link.wire.abort("gone")
                with pytest.raises(LinkLost, match="gone"):
                    link.wire.ask(b"NOOP\r\n", 1)

        run(play())


# --- what the server offers ------------------------------------------------------------------------------------------


def dsn_letter() -> Letter:
    wishes = (
        Wish(Notify.SUCCESS | Notify.DELAY, "rfc822;b+2Bx@clients.example"),
        Wish(Notify(0)),
        NO_WISH,
        Wish(Notify.FAILURE, "rfc822;x> SIZE=1"),
    )
    recipients = tuple(f"{letter}@clients.example" for letter in "bcde")
    return replace(LETTER, recipients=recipients, wishes=wishes, envid="QQ314159", ret="hdrs")


@pytest.mark.parametrize("pipelining", [True, False])
def test_what_the_sender_wants_to_hear_is_passed_on_where_it_is_understood(pipelining: bool) -> None:
    extensions = ("DSN", "PIPELINING") if pipelining else ("DSN",)
    with ScriptedProvider(extensions=extensions) as provider:
        run(transact_once(provider, dsn_letter()))
        commands = provider.sessions[0].commands
    assert commands[1:6] == [
        "MAIL FROM:<support@example.com> RET=HDRS ENVID=QQ314159",
        "RCPT TO:<b@clients.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;b+2Bx@clients.example",
        "RCPT TO:<c@clients.example> NOTIFY=NEVER",
        "RCPT TO:<d@clients.example>",
        "RCPT TO:<e@clients.example> NOTIFY=FAILURE",
    ]


def test_a_server_without_dsn_is_asked_for_nothing() -> None:
    with ScriptedProvider(extensions=("PIPELINING",)) as provider:
        run(transact_once(provider, dsn_letter()))
        commands = provider.sessions[0].commands
    assert not [command for command in commands if "NOTIFY" in command or "ENVID" in command or "RET=" in command]


@pytest.mark.parametrize(
    ("extensions", "lasting", "limits"),
    [
        (("SIZE 1000", "8BITMIME", "SMTPUTF8", "DSN"), offers.Offer(1000, True, True, True), (None, None, None)),
        (("SIZE 0",), offers.Offer(None, False, False, False), (None, None, None)),
        (
            ("LIMITS RCPTMAX=20 MAILMAX=5 RCPTDOMAINMAX=1",),
            offers.Offer(None, False, False, False),
            (20, 5, 1),
        ),
        (("LIMITS RCPTMAX=0 MAILMAX=many OTHER",), offers.Offer(None, False, False, False), (None, None, None)),
        ((), offers.Offer(None, False, False, False), (None, None, None)),
    ],
)
def test_an_ehlo_is_read(
    extensions: tuple[str, ...], lasting: offers.Offer, limits: tuple[int | None, int | None, int | None]
) -> None:
    async def look(provider: ScriptedProvider) -> Offer:
        async with linked(provider) as link:
            return link.offer

    with ScriptedProvider(extensions=extensions) as provider:
        offer = run(look(provider))
    assert offer.lasting == lasting
    assert (offer.recipients, offer.mails, offer.domains) == limits
