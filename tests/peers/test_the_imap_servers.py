"""The stage of the IMAP tests: what they take for granted both servers do, and the bad link is as bad as it says."""

from __future__ import annotations

import contextlib
import imaplib
import socket
import ssl
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.dovecot import Dovecot
from tests.support.ledger import Taken, balance
from tests.support.letters import letter, message_id
from tests.support.provider import Provider
from tests.support.proxy import Proxy
from tests.support.waiting import wait_until


@pytest.fixture(scope="module", params=[Dovecot, Cyrus], ids=["dovecot", "cyrus"])
def stage(request: pytest.FixtureRequest, authority: Authority) -> Iterator[Provider]:
    provider = Provider(authority, request.param)
    try:
        yield provider
    finally:
        provider.close()


def newcomer(stage: Provider, id: str) -> str:
    """Return the login of a fresh mailbox."""
    return str(stage.touchpoint(id)["address"])


def test_it_lets_in_who_knows_the_password_and_nobody_else(stage: Provider) -> None:
    user = newcomer(stage, "login")
    assert stage.server.lets_in(user, "secret of login")
    assert not stage.server.lets_in(user, "wrong")
    stage.set_password("login", "another")
    assert stage.server.lets_in(user, "another")
    assert not stage.server.lets_in(user, "secret of login")


def test_it_offers_what_the_gateway_likes_to_use(stage: Provider) -> None:
    with stage.server.session(newcomer(stage, "offers"), "INBOX") as imap:
        offered = set(imap.capability()[1][0].decode().split())
        assert {"IDLE", "UIDPLUS", "MOVE", "CONDSTORE", "QRESYNC", "ESEARCH", "SPECIAL-USE", "ENABLE"} <= offered
        folders = b"\n".join(item for item in imap.list()[1] if isinstance(item, bytes)).lower()
        assert b"\\junk" in folders
        assert b"\\sent" in folders


def test_cyrus_gives_each_message_an_id_that_stays_when_it_moves(authority: Authority) -> None:
    provider = Provider(authority, Cyrus)
    try:
        user = newcomer(provider, "ids")
        provider.server.append(user, letter(1, "id"))
        with provider.server.session(user, "INBOX", readonly=False) as imap:
            before = imap.uid("FETCH", "1", "(EMAILID)")[1][0].partition(b"EMAILID")[2]
            imap.uid("MOVE", "1", "Junk")
            imap.select("Junk", readonly=True)
            assert imap.uid("FETCH", "1:*", "(EMAILID)")[1][0].partition(b"EMAILID")[2] == before
            assert b"(M" in before
    finally:
        provider.close()


def test_a_delivery_is_announced_to_who_idles(stage: Provider) -> None:
    user = newcomer(stage, "idle")
    with stage.server.session(user, "INBOX") as imap:
        imap.send(b"x IDLE\r\n")
        imap.readline()
        stage.server.deliver(user, letter(1, "idle"))
        imap.sock.settimeout(10)
        while b"EXISTS" not in (line := imap.readline()):
            assert line
        imap.send(b"DONE\r\n")


def test_what_is_appended_is_there_byte_for_byte_with_its_date(stage: Provider) -> None:
    user = newcomer(stage, "append")
    at = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)
    for _ in range(2):  # twins are both kept
        stage.server.append(user, letter(1, "exact"), at=at)
    assert stage.server.messages(user) == [letter(1, "exact")] * 2
    with stage.server.session(user, "INBOX") as imap:
        shown = imaplib.Internaldate2tuple(imap.uid("FETCH", "1:*", "(INTERNALDATE)")[1][1])
    assert shown is not None
    assert datetime(*shown[:6]).astimezone(UTC) == at


def test_two_deliveries_with_one_message_id_are_two_messages(stage: Provider) -> None:
    user = newcomer(stage, "twins")
    stage.server.deliver(user, letter(1, "twin"), letter(1, "twin"))
    wait_until(lambda: stage.server.count(user) == 2, "both are there")


def test_a_seeded_mailbox_takes_further_mail(stage: Provider) -> None:
    user = newcomer(stage, "seeds")
    assert stage.server.seed(user, (letter(number, "old") for number in range(50))) == 50
    stage.server.deliver(user, letter(50, "new"))
    assert stage.server.count(user) == 51


def test_renumbering_changes_uids_and_their_validity_and_nothing_else(stage: Provider) -> None:
    user = newcomer(stage, "renumber")
    begun = datetime(2026, 1, 1, tzinfo=UTC)
    for number in range(5):
        stage.server.append(user, letter(number, "letter"), at=begun + timedelta(days=number))
    before = stage.server.status(user)
    with stage.server.session(user, "INBOX", readonly=False) as imap:
        imap.uid("STORE", "2", "+FLAGS", r"(\Flagged)")
        dates = sorted(imap.uid("FETCH", "1:*", "(INTERNALDATE)")[1], key=_date_of)
    stage.server.renumber(user)
    after = stage.server.status(user)
    assert after["UIDVALIDITY"] != before["UIDVALIDITY"]
    assert sorted(map(message_id, stage.server.messages(user))) == [f"<letter.{n}@clients.example>" for n in range(5)]
    assert sum(rb"\Flagged" in flags for flags in stage.server.flags(user)) == 1
    with stage.server.session(user, "INBOX") as imap:
        now = sorted(imap.uid("FETCH", "1:*", "(INTERNALDATE)")[1], key=_date_of)
    assert [_date_of(item) for item in now] == [_date_of(item) for item in dates]


def _date_of(item: bytes) -> str:
    shown = imaplib.Internaldate2tuple(item)
    assert shown is not None
    return datetime(*shown[:6]).isoformat()


def test_its_certificate_is_good_for_localhost(stage: Provider) -> None:
    context = stage.authority.client_context()
    with imaplib.IMAP4_SSL("localhost", stage.server.imaps_port, ssl_context=context) as imap:
        assert imap.state == "NONAUTH"
    with pytest.raises(ssl.SSLCertVerificationError):
        imaplib.IMAP4_SSL("localhost", stage.server.imaps_port, ssl_context=ssl.create_default_context())


@pytest.mark.parametrize("kind", [Dovecot, Cyrus], ids=["dovecot", "cyrus"])
def test_its_mailboxes_outlive_an_outage(kind: type[Dovecot | Cyrus], authority: Authority) -> None:
    provider = Provider(authority, kind)
    try:
        user = newcomer(provider, "outage")
        provider.server.deliver(user, letter(1, "before"))
        provider.server.stop()
        with pytest.raises(OSError):  # noqa: PT011  refused or reset, as the moment has it
            imaplib.IMAP4("127.0.0.1", provider.server.imap_port, timeout=5)
        provider.server.start()
        assert provider.server.count(user) == 1
    finally:
        provider.close()


# --- the bad link ----------------------------------------------------------------------------------------------------


@pytest.fixture
def echo() -> Iterator[tuple[Proxy, socket.socket]]:
    """A proxy, and what listens behind it."""
    listener = socket.create_server(("127.0.0.1", 0))
    proxy = Proxy(listener.getsockname()[1])
    try:
        with listener:
            listener.settimeout(10)
            yield proxy, listener
    finally:
        proxy.close()


def linked(echo: tuple[Proxy, socket.socket]) -> tuple[socket.socket, socket.socket]:
    """Return both ends of a new link: the client's and the server's."""
    proxy, listener = echo
    client = socket.create_connection(("127.0.0.1", proxy.port), timeout=10)
    server, _ = listener.accept()
    server.settimeout(10)
    return client, server


def read_to_the_end(end: socket.socket) -> bytes:
    found = b""
    with contextlib.suppress(OSError):
        while piece := end.recv(65536):
            found += piece
    return found


def test_a_clear_link_passes_everything_both_ways_and_its_end(echo: tuple[Proxy, socket.socket]) -> None:
    client, server = linked(echo)
    with client, server:
        client.sendall(b"up")
        assert server.recv(10) == b"up"
        server.sendall(b"down" * 50_000)
        server.close()
        assert read_to_the_end(client) == b"down" * 50_000


def test_a_dropped_link_is_cut_on_both_sides_and_the_next_one_works(echo: tuple[Proxy, socket.socket]) -> None:
    client, server = linked(echo)
    with client, server:
        client.sendall(b"x")
        assert server.recv(1) == b"x"
        assert echo[0].drop() == 1
        assert read_to_the_end(client) == b""
        assert read_to_the_end(server) == b""
    client, server = linked(echo)
    with client, server:
        client.sendall(b"again")
        assert server.recv(10) == b"again"


@pytest.mark.parametrize("limits", [{"down": 7}, {"up": 7}], ids=["from-the-server", "to-the-server"])
def test_a_truncated_link_passes_so_many_bytes_and_is_cut(
    limits: dict[str, int], echo: tuple[Proxy, socket.socket]
) -> None:
    client, server = linked(echo)
    sender, receiver = (server, client) if "down" in limits else (client, server)
    with client, server:
        echo[0].truncate(**limits)
        sender.sendall(b"0123456789" * 10)
        assert read_to_the_end(receiver) == b"0123456"
        assert read_to_the_end(sender) == b""


def test_a_half_open_link_swallows_until_it_is_healed_and_then_it_is_cut(echo: tuple[Proxy, socket.socket]) -> None:
    client, server = linked(echo)
    with client, server:
        echo[0].go_half_open()
        client.sendall(b"lost")
        server.settimeout(0.3)
        with pytest.raises(TimeoutError):
            server.recv(10)
        client.close()
        with pytest.raises(TimeoutError):  # nor does it hear that the other side has gone
            server.recv(10)
        server.settimeout(10)
        echo[0].heal()
        assert read_to_the_end(server) == b""
        wait_until(lambda: len(echo[0]) == 0, "the link is gone", state=lambda: len(echo[0]))


def test_a_delayed_link_is_late_and_loses_nothing(echo: tuple[Proxy, socket.socket]) -> None:
    client, server = linked(echo)
    with client, server:
        echo[0].delay(0.2)
        client.sendall(b"late")
        server.settimeout(0.05)
        with pytest.raises(TimeoutError):
            server.recv(10)
        server.settimeout(10)
        assert server.recv(10) == b"late"


def test_a_link_to_a_server_that_is_away_is_cut_at_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy = Proxy(listener.getsockname()[1])
    try:
        with socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
            assert read_to_the_end(client) == b""
    finally:
        proxy.close()


# --- the count -------------------------------------------------------------------------------------------------------


def row(subject: str, **changes: object) -> Taken:
    fields = {"quarantine": 0, "placeholder": None, "origin": "queue", "conversation": "open", "queues": 1, **changes}
    return Taken(id=1, subject=subject, state=str(fields.pop("state", "routed")), **fields)  # type: ignore[arg-type]  # a mixed table


@pytest.mark.parametrize(
    ("rows", "verdict"),
    [
        ([row("a"), row("a"), row("b"), row("j", quarantine=2, conversation="quarantined")], None),
        ([row("a"), row("b"), row("j", quarantine=2)], "'a': made 2, in queues 2, in Junk 0, elsewhere 0, taken 1"),
        ([row("a")] * 2 + [row("b")] * 2 + [row("j", quarantine=2)], "'b': made 1"),
        ([row("a"), row("a"), row("b", queues=0), row("j", quarantine=2)], "'b': 1 lie in watched folders, 0 in a"),
        ([row("a"), row("a"), row("b", state="arrived"), row("j", quarantine=2)], "'b': arrived and never routed"),
        ([row("a"), row("a"), row("b"), row("j", queues=0)], "'j': neither in a queue nor in quarantine"),
        ([row("a"), row("a"), row("b"), row("j", quarantine=2), row("x")], "'x': nobody has made it"),
    ],
    ids=["right", "a-twin-is-missing", "one-twice", "in-no-queue", "not-routed", "junk-is-nowhere", "made-up"],
)
def test_the_count_notices(rows: list[Taken], verdict: str | None) -> None:
    found = balance(rows, Counter(a=2, b=1, j=1, d=1), Counter(a=2, b=1), Counter(j=1), Counter())
    assert [wrong[: len(verdict or wrong)] for wrong in found.wrong] == ([verdict] if verdict else [])
