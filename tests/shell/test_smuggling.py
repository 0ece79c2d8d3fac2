"""SMTP smuggling: a second message behind something that some server takes for the end of the first.

Every published variant, over a real socket: as one write that does not wait for replies, and step by step. Then all of
them through the daemon: what a provider gets holds nothing that any server could take for an end of data.
"""

from __future__ import annotations

import base64
import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.authority import Authority
from tests.support.daemon import Daemon, Site
from tests.support.sink import Sink
from tests.support.submission import PASSWORD, Rig, replies
from tests.support.waiting import wait_until

PLAIN = base64.b64encode(f"\0ana@example.com\0{PASSWORD}".encode()).decode()
ENVELOPE = ["MAIL FROM:<ana@example.com>", "RCPT TO:<kim@clients.example>", "DATA"]
HEADER = "From: support@example.com\r\nTo: kim@clients.example\r\nMessage-ID: <{}@client.example>\r\n"
LETTER = HEADER.format("first") + "\r\nHello Kim\r\n"
SMUGGLED = [*ENVELOPE, "From: support@example.com\r\nMessage-ID: <smuggled@client.example>\r\n\r\nsmuggled"]

# What is refused: a CR or LF of its own, or a NUL, whatever surrounds it
REFUSED = {
    "LF.LF": "\n.\n",
    "LF.CRLF": "\n.\r\n",
    "CRLF.LF": "\r\n.\n",
    "CR.CR": "\r.\r",
    "CR.CRLF": "\r.\r\n",
    "CR.LF": "\r.\n",
    "LF.CR": "\n.\r",
    "CRLF.CR": "\r\n.\r",
    "CRLF.CRCRLF": "\r\n.\r\r\n",
    "CRCRLF.CRCRLF": "\r\r\n.\r\r\n",
    "CRCRLF.CRLF-inside": "x\r\r\n.x\r\n",
    "LFLF.CRLF": "\n\n.\r\n",
    "LFCR.LFCR": "\n\r.\n\r",
    "CRLF-NUL.CRLF": "\r\n\0.\r\n",
    "CRLF.NUL-CRLF": "\r\n.\0\r\n",
    "CR-NUL-LF.CRLF": "\r\0\n.\r\n",
    "CRLF.CR-NUL-LF": "\r\n.\r\0\n",
    "NUL.NUL": "\0.\0",
    "CR-NUL.CR-NUL": "\r\0.\r\0",
}
# What is content like any other: no server that we have heard of takes it for a line end
TAKEN = {
    "CRLF.SPACE-CRLF": "\r\n. \r\n",
    "CRLF-SPACE.CRLF": "\r\n .\r\n",
    "CRLF.TAB-CRLF": "\r\n.\t\r\n",
    "CRLF..CRLF": "\r\n..\r\n",
    "NEL.NEL": "\x85.\x85",
    "VT.VT": "\x0b.\x0b",
    "FF.FF": "\x0c.\x0c",
    "CTRL-Z": "\r\n\x1a\r\n",
}


@pytest.fixture
def rig(tmp_path: Path, authority: Authority) -> Iterator[Rig]:
    rig = Rig(tmp_path, authority)
    yield rig
    rig.close()


def say(plug: socket.socket, text: str) -> None:
    plug.sendall(text.encode("latin-1"))


def logged_in(port: int) -> socket.socket:
    plug = socket.create_connection(("127.0.0.1", port), timeout=20)
    say(plug, f"EHLO me\r\nAUTH PLAIN {PLAIN}\r\n")
    assert replies(plug, 3)[2].startswith("235")
    return plug


def submit(plug: socket.socket, content: str, *, piped: bool) -> list[str]:
    """Send an envelope, `content` and the true end; return the reply to the end and the one to NOOP behind it."""
    if piped:
        say(plug, "".join(f"{line}\r\n" for line in ENVELOPE) + content + "\r\n.\r\nNOOP\r\n")
        found = replies(plug, 5)
        assert [reply[:3] for reply in found[:3]] == ["250", "250", "354"]
        return found[3:]
    for line in ENVELOPE:
        say(plug, f"{line}\r\n")
        assert replies(plug, 1)[0][:3] in ("250", "354")
    for piece in re.split(r"(?<=\n)", content):  # a packet for each line
        say(plug, piece)
    say(plug, "\r\n.\r\n")
    end = replies(plug, 1)
    say(plug, "NOOP\r\n")
    return end + replies(plug, 1)


@pytest.mark.parametrize("piped", [True, False], ids=["piped", "step-by-step"])
@pytest.mark.parametrize("end", REFUSED.values(), ids=REFUSED)
def test_no_false_end_ends_a_message_and_none_is_kept(rig: Rig, end: str, piped: bool) -> None:
    with logged_in(rig.port("smtp+insecure")) as plug:
        reply, after = submit(plug, f"{LETTER}body{end}" + "\r\n".join(SMUGGLED), piped=piped)
        assert reply.startswith("550 5.6.11")
        assert after.startswith("250 2.0.0")  # one reply for all of it: the server and its client are in step
    assert rig.outbox() == []


@pytest.mark.parametrize("piped", [True, False], ids=["piped", "step-by-step"])
@pytest.mark.parametrize("end", TAKEN.values(), ids=TAKEN)
def test_what_only_looks_odd_is_one_message(rig: Rig, end: str, piped: bool) -> None:
    with logged_in(rig.port("smtp+insecure")) as plug:
        reply, after = submit(plug, f"{LETTER}body{end}" + "\r\n".join(SMUGGLED), piped=piped)
        assert reply.startswith("250 2.0.0 queued as")
        assert after.startswith("250 2.0.0")
    (message,) = rig.outbox()
    assert message["message_id"] == "<first@client.example>"


@pytest.mark.parametrize("odd", ["\r", "\n", "\0"], ids=["CR", "LF", "NUL"])
@pytest.mark.parametrize(
    "where",
    [
        "Subject: a{}b\r\n",
        "Subject: a\r\n{}\tb\r\n",
        "{}Subject: a\r\n",
        "Subject{}: a\r\n",
        "Subject: a{}Bcc: x@y.z\r\n",
    ],
)
def test_the_header_hides_nothing_either(rig: Rig, where: str, odd: str) -> None:
    with logged_in(rig.port("smtp+insecure")) as plug:
        reply, _ = submit(plug, HEADER.format("one") + where.format(odd) + "\r\nHello", piped=True)
        assert reply.startswith("550 5.6.11")
    assert rig.outbox() == []


@pytest.mark.parametrize("begin", [".\n", "\n.\r\n", ".\r", "\r.\r\n", "\0.\r\n"], ids=repr)
def test_nor_does_the_very_beginning(rig: Rig, begin: str) -> None:
    with logged_in(rig.port("smtp+insecure")) as plug:
        reply, after = submit(plug, begin + "\r\n".join(SMUGGLED), piped=True)
        assert reply.startswith("550 5.6.11")
        assert after.startswith("250")
    assert rig.outbox() == []


@pytest.mark.parametrize("command", ["NOOP{}MAIL FROM:<a@b.example>", "RSET {}DATA", "MAIL FROM:<a@b.example>{}RCPT"])
@pytest.mark.parametrize("odd", ["\r", "\0", "\x0b"], ids=["CR", "NUL", "VT"])
def test_one_command_is_never_two(rig: Rig, command: str, odd: str) -> None:
    with logged_in(rig.port("smtp+insecure")) as plug:
        say(plug, f"{command.format(odd)}\r\nNOOP\r\n")
        found = replies(plug, 2)
        assert found[0].startswith("50")
        assert found[1].startswith("250 2.0.0")


def test_nothing_smuggled_is_ever_relayed(make_daemon: Callable[..., Daemon]) -> None:
    sink = Sink()
    site = Site(
        touchpoints=[
            {
                "id": "support", "address": "support@example.com", "name": "Support", "active": True,
                "direction": "outbound", "smtp": f"smtp+insecure://127.0.0.1:{sink.port}", "password": "env:SECRET",
                "linked_queues": ["support"],
            }
        ]
    )  # fmt: skip
    site.add_agent("ana@example.com", PASSWORD, ["support"])
    daemon = make_daemon(site, {"SECRET": "nobody asks for it"})
    daemon.start()
    expected = set()
    try:
        for number, (name, end) in enumerate({**REFUSED, **TAKEN}.items()):
            with logged_in(daemon.submission_port) as plug:
                content = HEADER.format(number) + f"\r\nbody{end}" + "\r\n".join(SMUGGLED)
                reply, _ = submit(plug, content, piped=bool(number % 2))
                if name in TAKEN:
                    assert reply.startswith("250")
                    expected.add(f"<{number}@client.example>")
        wait_until(lambda: set(sink.message_ids) >= expected, "what was accepted is relayed")
        daemon.stop()
    finally:
        sink.close()
    assert sorted(sink.message_ids) == sorted(expected)
    for taken in sink.taken:
        assert re.search(rb"(?<!\r)\n|\r(?!\n)|\0", taken.raw) is None
