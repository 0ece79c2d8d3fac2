"""Mail that an agent's client has sealed goes through the real daemon, Postfix and Dovecot, and the seal holds.

The judges are openssl and gpg. The touchpoint wants a signature on everything; mail without a seal, and each seal with
one octet changed, show that the judges would see it.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator
from email import message_from_bytes
from itertools import count

import dkim
import pytest
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.support import dkim_keys
from tests.support.daemon import Daemon, Site
from tests.support.dkim_keys import PKCS1, pem_of
from tests.support.provider import CUSTOMER, Provider
from tests.support.seals import AGENT, Pgp, Seal, SMime
from tests.support.waiting import wait_until

LOGIN, PASSWORD = "ana@gateway.example", "secret"
MARK = "signature of the team"
_numbers = count(1)

# What SMTP and careless rewriting hurt: dots, blanks at line ends, "From ", the longest line, 8-bit letters, a
# delimiter, a boundary-like line, blank lines at the end.
AWKWARD = (
    ".\r\n..two\r\n.a line\r\nblanks at the end  \r\ntab\t\r\nFrom here\r\n>From there\r\n-- \r\nAna\r\n--seal-less\r\n"
    + "x" * 990
    + "\r\nolá, Grüße, 日本\r\n\r\n\r\n"
).encode()
PART = b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + AWKWARD
TREE = (
    b'Content-Type: multipart/alternative; boundary="inner"\r\n\r\n--inner\r\nContent-Type: text/plain\r\n\r\nHello\r\n'
    b"--inner\r\nContent-Type: text/html\r\n\r\n<html><body><p>Hello</p></body></html>\r\n--inner--\r\n"
)
ENTITIES = {"plain": PART, "alternative": TREE}


@pytest.fixture(scope="module")
def smime(tmp_path_factory: pytest.TempPathFactory) -> SMime:
    return SMime(tmp_path_factory.mktemp("smime"))


@pytest.fixture(scope="module")
def pgp() -> Iterator[Pgp]:
    pgp = Pgp()
    try:
        yield pgp
    finally:
        pgp.close()


@pytest.fixture
def through(shared_provider: Provider, make_daemon: Callable[..., Daemon]) -> Callable[[bytes], bytes]:
    """Submit header fields and a body as an agent; return the message as the customer's mailbox has it."""
    wanted = {"active": True, "text": MARK, "html": f"<p>{MARK}</p>"}
    touchpoint = shared_provider.touchpoint("signed", "outbound", signature=wanted, linked_queues=["signed"])
    site = Site([touchpoint])
    site.add_agent(LOGIN, PASSWORD, ["signed"])
    daemon = make_daemon(site)
    daemon.start()

    def send(content: bytes) -> bytes:
        id = f"<sealed.{next(_numbers)}@gateway.example>".encode()
        head = b"From: %s\r\nTo: %s\r\nSubject: Sealed\r\nMessage-ID: %s\r\n" % (AGENT.encode(), CUSTOMER.encode(), id)
        raw = head + (b"" if b"MIME-Version" in content else b"MIME-Version: 1.0\r\n") + content
        session = daemon.submit(LOGIN, PASSWORD)
        try:
            session.sendmail(AGENT, [CUSTOMER], raw, ["BODY=8BITMIME"])
        finally:
            session.quit()

        def arrived() -> bytes | None:
            return next((one for one in shared_provider.dovecot.messages(CUSTOMER) if id in one), None)

        found = wait_until(arrived, "the customer has it", timeout=30, state=daemon.log_tail)
        assert found is not None
        return found

    return send


def held(seal: Seal, raw: bytes) -> None:
    assert seal.holds, seal.words
    assert MARK.encode() not in raw


@pytest.mark.parametrize("kind", ENTITIES)
def test_openssl_verifies_what_was_signed_detached(kind: str, smime: SMime, through: Callable[[bytes], bytes]) -> None:
    raw = through(smime.detached(ENTITIES[kind]))
    held(smime.verify(raw), raw)
    changed = raw.replace(b"Hello" if kind == "alternative" else b"a line", b"a lime", 1)
    assert changed != raw
    assert not smime.verify(changed).holds


@pytest.mark.parametrize("kind", ENTITIES)
def test_openssl_verifies_and_reads_what_is_opaque(kind: str, smime: SMime, through: Callable[[bytes], bytes]) -> None:
    raw = through(smime.opaque(ENTITIES[kind]))
    seal = smime.verify(raw)
    held(seal, raw)
    assert seal.content == ENTITIES[kind]


def test_openssl_reads_what_is_encrypted(smime: SMime, through: Callable[[bytes], bytes]) -> None:
    raw = through(smime.encrypted(PART))
    seal = smime.decrypt(raw)
    held(seal, raw)
    assert seal.content == PART


@pytest.mark.parametrize("kind", ENTITIES)
def test_gpg_verifies_what_was_signed_detached(kind: str, pgp: Pgp, through: Callable[[bytes], bytes]) -> None:
    raw = through(pgp.detached(ENTITIES[kind]))
    seal = pgp.verify_detached(raw)
    held(seal, raw)
    assert seal.content == ENTITIES[kind]
    assert not pgp.verify_detached(raw.replace(b"Content-Type: text/plain", b"content-type: text/plain")).holds


def test_gpg_verifies_armour_in_the_text(pgp: Pgp, through: Callable[[bytes], bytes]) -> None:
    clear = pgp.clear("Hello\n- a dash\n-- \nolá\n".encode())
    raw = through(b"Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: 8bit\r\n\r\n" + clear)
    text = message_from_bytes(raw).get_payload(decode=True)
    assert isinstance(text, bytes)
    held(pgp.verify_clear(text), raw)
    assert not pgp.verify_clear(text.replace(b"Hello", b"Hallo")).holds


def test_a_clients_own_dkim_signature_verifies(through: Callable[[bytes], bytes]) -> None:
    public = dkim_keys.rsa().public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    record = b"v=DKIM1; k=rsa; p=" + b64encode(public)

    def is_valid(raw: bytes) -> bool:
        return bool(dkim.verify(raw, dnsfunc=lambda name, timeout=5: record))

    content = b"MIME-Version: 1.0\r\n" + PART
    key = pem_of(dkim_keys.rsa(), PKCS1).encode()
    fields = b"From: %s\r\nSubject: Sealed\r\n" % AGENT.encode()
    canonical = (b"simple", b"simple")
    seal = dkim.sign(
        fields + content, b"s1", b"support.example", key, canonicalize=canonical, include_headers=[b"from", b"subject"]
    )
    raw = through(seal + content)
    assert MARK.encode() not in raw
    assert is_valid(raw)
    assert not is_valid(raw.replace(b".a line", b".a lime"))


@pytest.mark.parametrize("kind", ENTITIES)
def test_mail_without_a_seal_has_the_signature(kind: str, through: Callable[[bytes], bytes]) -> None:
    raw = through(ENTITIES[kind])
    assert raw.count(MARK.encode()) == (2 if kind == "alternative" else 1)


def test_a_copy_that_is_sent_again_has_the_signature_once(through: Callable[[bytes], bytes]) -> None:
    """As "edit as new" in a mail client: the same body under another Message-ID."""
    sent = through(TREE)
    fields, _, body = sent.partition(b"\r\n\r\n")
    kind = message_from_bytes(fields)["Content-Type"].encode()
    again = through(b"Content-Type: " + kind + b"\r\n\r\n" + body)
    assert again.count(MARK.encode()) == 2  # once in the text, once in the HTML
    assert again.partition(b"\r\n\r\n")[2] == body


def test_an_answer_that_quotes_the_signature_has_one_of_its_own_above(through: Callable[[bytes], bytes]) -> None:
    first = message_from_bytes(through(b"Content-Type: text/plain\r\n\r\nHello\r\n"))
    quoted = b"".join(b"> " + line + b"\r\n" for line in first.get_payload(decode=True).splitlines())  # type: ignore[union-attr]
    answer = b"More.\r\n\r\nOn Mon, 23 Nov 2026 at 10:00, Ana wrote:\r\n"
    raw = through(b"Content-Type: text/plain\r\n\r\n" + answer + quoted)
    above, _, below = raw.partition(b"On Mon, 23 Nov 2026")
    assert above.rstrip().endswith(f"-- \r\n{MARK}".encode())
    assert below.count(MARK.encode()) == 1
