"""Reading what IMAP servers send: the same however it is cut up, and harmless whatever it is."""

from __future__ import annotations

import base64
import re
from datetime import UTC, datetime
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Malformed
from gateway.inbound import fetch, names, reply, uids
from gateway.inbound.fetch import Fetched, Headed, Listed
from gateway.inbound.framing import LINE_BYTES, PIECE_BYTES, Framer, Response
from gateway.inbound.identity import SENT_FIELDS, fingerprint, object_id, outline, outline_of

LIMIT = 10_000


def framed(data: bytes, cuts: list[int] | None = None) -> list[Response]:
    framer = Framer(LIMIT)
    edges = sorted({0, len(data), *(cut % (len(data) + 1) for cut in cuts or [])})
    responses: list[Response] = []
    for start, end in pairwise(edges):
        responses += framer.feed(data[start:end])
    return responses


texts = st.binary(max_size=30).map(lambda text: bytes(set_ for set_ in text if set_ not in b"\r\n{}"))
literals = st.binary(max_size=60)


@st.composite
def responses(draw: st.DrawFn) -> tuple[Response, bytes]:
    """A response as it should be understood, and as it is on the wire."""
    parts = [b"* 1 FETCH " + draw(texts)]
    wire = parts[0]
    for literal in draw(st.lists(literals, max_size=4)):
        opening = draw(st.sampled_from([b"{%d}", b"{%d+}", b"~{%d}"])) % len(literal)
        rest = draw(texts)
        parts[-1] += opening
        parts += [literal, rest]
        wire += opening + b"\r\n" + literal + rest
    return tuple(parts), wire + b"\r\n"


@given(st.lists(responses(), max_size=6), st.lists(st.integers(0, 10_000), max_size=12))
def test_however_it_is_cut_up_the_responses_are_the_same(sent: list[tuple[Response, bytes]], cuts: list[int]) -> None:
    data = b"".join(wire for _, wire in sent)
    assert framed(data, cuts) == [response for response, _ in sent]


@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=8))
def test_rubbish_is_framed_the_same_however_it_is_cut_up(data: bytes, cuts: list[int]) -> None:
    def outcome(cuts: list[int]) -> object:
        try:
            return framed(data, cuts)
        except Malformed as error:
            return str(error)

    assert outcome(cuts) == outcome([])


@pytest.mark.parametrize("line", [b"* OK see {5}", b"* BYE {3}", b"a1 NO {9}", b"+ {4}", b"* no {2}"])
def test_text_for_people_announces_no_literal(line: bytes) -> None:
    assert framed(line + b"\r\n* 1 EXISTS\r\n") == [(line,), (b"* 1 EXISTS",)]


def test_an_empty_literal_is_a_literal() -> None:
    assert framed(b"* 1 FETCH (BODY[] {0}\r\n)\r\n") == [(b"* 1 FETCH (BODY[] {0}", b"", b")")]


uid_lines = st.builds(
    lambda kind, count, step, end: kind + (b"," if b"ALL" in kind or b"VAN" in kind else b" ").join(
        b"%d" % uid for uid in range(2**31, 2**31 + count * step, step)
    ) + end,
    st.sampled_from([b"* SEARCH ", b"* search ", b'* ESEARCH (TAG "a,b") UID ALL ', b"* VANISHED (EARLIER) "]),
    st.integers(0, 20_000),
    st.integers(1, 9),
    st.sampled_from([b"", b" ", b" MODSEQ 5", b" (MODSEQ 5)"]),
)  # fmt: skip


@given(uid_lines, st.lists(st.integers(0, 250_000), max_size=5))
def test_a_long_line_of_uids_comes_in_pieces_that_say_the_same(line: bytes, cuts: list[int]) -> None:
    pieces = framed(line + b"\r\n* 1 EXISTS\r\n", cuts)
    assert pieces == framed(line + b"\r\n* 1 EXISTS\r\n")
    assert pieces.pop() == (b"* 1 EXISTS",)
    assert max(len(piece) for (piece,) in pieces) <= PIECE_BYTES + 50
    for read in (searched, vanished):
        assert [uid for (piece,) in pieces for uid in read(piece) or ()] == (read(line) or [])


@pytest.mark.parametrize("begin", [b"* SEARCH ", b"* ESEARCH ", b"* ESEARCH (" + b" " * 2000, b"* 1 FETCH "])
def test_a_line_without_an_end_is_malformed_also_where_uids_could_be(begin: bytes) -> None:
    with pytest.raises(Malformed):
        framed(begin + b"1" * LINE_BYTES + b"\r\n")


def test_a_stream_is_clean_only_between_responses() -> None:
    framer = Framer(LIMIT)
    assert framer.is_clean
    for data, clean in [(b"* OK", False), (b"\r\n", True), (b"* 1 FETCH ({3}\r\n", False), (b"abc)\r\n", True)]:
        framer.feed(data)
        assert framer.is_clean == clean


@pytest.mark.parametrize(
    "data",
    [
        b"x" * (LINE_BYTES + 1),
        b"x" * (LINE_BYTES + 1) + b"\r\n",
        b"* 1 FETCH ({%d}\r\n" % (LIMIT + 1),
        b"* 1 FETCH (" + b"{0}\r\n" * 3000,
        b"* 1 FETCH " + (b"y" * 1000 + b"{1}\r\nz") * 1100,
    ],
    ids=["endless-line", "long-line", "long-literal", "many-literals", "many-lines"],
)
def test_what_has_no_end_is_malformed(data: bytes) -> None:
    with pytest.raises(Malformed):
        framed(data, list(range(0, len(data), 4096)))


# --- FETCH -----------------------------------------------------------------------------------------------------------


@given(st.integers(1, 2**32 - 1), st.integers(0, 2**40), st.binary(max_size=500), st.permutations(range(4)))
def test_a_message_is_read_as_it_was_sent(uid: int, size: int, raw: bytes, order: list[int]) -> None:
    items = [
        b"UID %d" % uid,
        b"RFC822.SIZE %d" % size,
        b'INTERNALDATE "17-Jul-2026 02:44:25 -0700"',
        b"BODY[] {%d}\r\n%b" % (len(raw), raw),
    ]
    wire = b"* 3 fetch (" + b" ".join(items[place] for place in order) + b")\r\n"
    (response,) = Framer(LIMIT).feed(wire)
    assert fetch.read_fetched(response) == Fetched(uid, raw)
    assert fetch.read_listed(response) == Listed(uid, size, datetime(2026, 7, 17, 9, 44, 25, tzinfo=UTC))


BEGINNINGS = [
    b"", b"* 1 FETCH (", b"* 9 UIDFETCH (ENVELOPE (", b'* ESEARCH (TAG "a") UID ALL ', b"* SEARCH ", b"* VANISHED ",
    b'* LIST () "/" ', b"* LIST (", b"* STATUS INBOX (", b"* OK [MESSAGELIMIT ", b"* OK [COPYUID ", b"* CAPABILITY ",
]  # fmt: skip


@given(st.binary(max_size=300), st.sampled_from(BEGINNINGS))
def test_no_response_makes_a_reader_raise(data: bytes, prefix: bytes) -> None:
    try:
        found = framed(prefix + data + b"\r\n")
    except Malformed:
        return
    for response in found:
        for read in (
            fetch.read_listed, fetch.read_fetched, fetch.read_headed, fetch.read_head, uids.read_found,
            names.read_folder, names.read_status,
        ):  # fmt: skip
            read(response)
        fetch.read_part(response, 0)
        for line in (response[0], response[0][2:]):
            for look in (
                reply.response_code, reply.human_text, reply.read_cut, reply.read_copied, reply.read_capabilities,
                uids.read_vanished,
            ):  # fmt: skip
                look(line)


@pytest.mark.parametrize(
    ("wire", "expected"),
    [
        (b'* 1 FETCH (UID 5 BODY[] "a \\"quoted\\" \\\\ body")', Fetched(5, b'a "quoted" \\ body')),
        (b"* 1 FETCH (UID 5 BODY[] NIL)", Fetched(5, None)),
        (b'* 1 FETCH (FLAGS (\\Seen $x) UID 5 X-GM-LABELS ("\\\\Inbox" a) BODY[] "x")', Fetched(5, b"x")),
        (b'* 1 FETCH (UID 5 BODY[HEADER.FIELDS ("FROM" DATE)] "h" BODY[]<0> "part")', None),
        (b'* 1 FETCH (BODY[] "no uid")', None),
        (b'* 1 FETCH UID 5 BODY[] "x"', None),
        (b'* 1 FETCH (UID 5 BODY[] "x"', None),
        (b'* 1 FETCH (UID 5 BODY[] "x"))', None),
        (b"* 1 FETCH (UID 5 BODY[] {3}", None),
        (b"* 1 FETCH " + b"(" * 100, None),
        (b"* 1 EXISTS", None),
    ],
)  # fmt: skip
def test_bodies_come_in_many_shapes(wire: bytes, expected: Fetched | None) -> None:
    assert fetch.read_fetched((wire,)) == expected


OWN = object_id(b"emailid", b"M1a")
GM = object_id(b"gm", b"12345678901234567890")


@pytest.mark.parametrize(
    ("wire", "own"),
    [
        (b"* 3 FETCH (UID 9 RFC822.SIZE 10 %b EMAILID (M1a))", OWN),
        (b"* 3 FETCH (EMAILID (M1a) UID 9 RFC822.SIZE 10 %b)", OWN),
        (b"* 3 FETCH (UID 9 RFC822.SIZE 10 %b EMAILID NIL)", None),
        (b"* 3 FETCH (UID 9 RFC822.SIZE 10 %b EMAILID ())", None),
        (b"* 3 FETCH (X-GM-MSGID 12345678901234567890 UID 9 RFC822.SIZE 10 %b)", GM),
        (b"* 3 FETCH (UID 9 RFC822.SIZE 10 %b X-GM-MSGID 12345678901234567890)", GM),
        (b"* 9 UIDFETCH (RFC822.SIZE 10 %b)", None),
        (b"* 9 UIDFETCH (RFC822.SIZE 10 %b EMAILID (M1a))", OWN),
        (b"* 9 UIDFETCH (EMAILID (M1a) RFC822.SIZE 10 %b)", OWN),
        (b"* 9 UIDFETCH (UID 9 RFC822.SIZE 10 %b FLAGS ())", None),
    ],
)
def test_listings_come_in_many_shapes(wire: bytes, own: int | None) -> None:
    date = b'INTERNALDATE "17-Jul-2026 02:44:25 -0700"'
    assert fetch.read_listed((wire % date,)) == Listed(9, 10, datetime(2026, 7, 17, 9, 44, 25, tzinfo=UTC), own)


@given(st.text("0123456789", min_size=1, max_size=30) | st.text("aB0-_", min_size=1, max_size=30))
def test_an_email_id_is_the_same_on_both_roads(id: str) -> None:
    date = b'INTERNALDATE "17-Jul-2026 02:44:25 -0700"'
    short = b"* 3 FETCH (UID 9 RFC822.SIZE 10 %b EMAILID (%b))" % (date, id.encode())
    long = b"* 3 FETCH (EMAILID (%b) UID 9 RFC822.SIZE 10 %b)" % (id.encode(), date)
    assert fetch.read_listed((short,)) == fetch.read_listed((long,))


@pytest.mark.parametrize("size", [2**48, 2**63, 10**19])
def test_a_size_beyond_all_reason_stays_within_the_store(size: int) -> None:
    date = b'INTERNALDATE "17-Jul-2026 02:44:25 -0700"'
    for form in (b"* 1 FETCH (UID 5 RFC822.SIZE %d %b)", b"* 1 FETCH (RFC822.SIZE %d %b UID 5)"):
        listed = fetch.read_listed((form % (size, date),))
        assert listed is not None
        assert listed.size == 2**48


def test_a_listing_with_a_header_is_read() -> None:
    wire = b'* 2 FETCH (UID 9 RFC822.SIZE 10 INTERNALDATE "x" BODY[HEADER.FIELDS ("DATE" FROM)] {6}\r\nDate:\n)\r\n'
    (response,) = Framer(LIMIT).feed(wire)
    assert fetch.read_headed(response) == Headed(Listed(9, 10, None), b"Date:\n")
    assert fetch.read_headed((b"* 2 FETCH (UID 9 RFC822.SIZE 10)",)) == Headed(Listed(9, 10, None), b"")
    assert fetch.read_headed((b"* 2 FETCH (UID 9)",)) is None


@given(st.datetimes(datetime(1970, 1, 1), datetime(9999, 1, 1)), st.integers(-14 * 60, 14 * 60))
def test_internaldate_is_the_moment_that_it_says(at: datetime, minutes: int) -> None:
    sign, (hours, rest) = "-" if minutes < 0 else "+", divmod(abs(minutes), 60)
    month = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"][at.month - 1]
    text = f"{at.day:2d}-{month}-{at.year:04d} {at:%H:%M:%S} {sign}{hours:02d}{rest:02d}"
    found = fetch.read_internaldate(text.encode())
    assert found is not None
    assert (found.timestamp() + minutes * 60) == at.replace(microsecond=0, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", [b"", b"32-Jul-2026 00:00:00 +0000", b"01-Foo-2026 00:00:00 +0000", b"nonsense" * 9])
def test_a_date_that_is_none_is_none(text: bytes) -> None:
    assert fetch.read_internaldate(text) is None


# --- sets, names, searches -------------------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 500)))
def test_a_uid_set_survives_the_trip(wanted: set[int]) -> None:
    assert uids.spell(uids.format_runs(uids.runs_of(sorted(wanted))).encode(), 500) == sorted(wanted)


@given(st.sets(st.integers(1, 3000), min_size=1), st.integers(1, 400), st.booleans())
def test_batches_name_every_uid_in_short_lines(wanted: set[int], most: int, loose: bool) -> None:
    named: list[int] = []
    for batch, text in uids.batches(sorted(wanted), most, loose=loose):
        assert len(text) <= 900
        assert 0 < len(batch) <= most
        covered = uids.spell(text.encode(), 10_000)
        assert set(batch) <= set(covered) if loose else list(batch) == covered
        assert len(covered) <= 2 * len(batch) + 1
        named += batch
    assert named == sorted(wanted)


@pytest.mark.parametrize("number", [b"0", b"4294967296", b"9" * 25, b"9" * 5000, b"-1", b"x"])
def test_a_number_that_no_server_may_give_is_none(number: bytes) -> None:
    listing = b'* 1 FETCH (UID %s RFC822.SIZE 5 INTERNALDATE "17-Jul-1996 02:44:25 -0700")' % number
    assert fetch.read_listed((listing,)) is None
    assert fetch.read_listed((listing.replace(b"UID ", b"FLAGS () UID "),)) is None
    assert searched(b"* SEARCH 7 " + number) == [7]
    assert uids.read_runs(b"7," + number) == [(7, 7)]


def test_a_set_that_names_the_whole_world_is_not_written_out() -> None:
    assert uids.spell(b"1:4294967295", 1000) == []
    assert uids.spell(b"5:3,x,9:y,7", 1000) == [3, 4, 5, 7]
    assert uids.expand([(1, 4294967295)], 3) == (4294967293, 4294967294, 4294967295)
    assert uids.expand([(3, 5), (1, 4), (9, 9)], 1000) == (1, 2, 3, 4, 5, 9)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"* SEARCH 3 1 2", [3, 1, 2]),
        (b"* search", []),
        (b'* ESEARCH (TAG "a1") UID ALL 1:3,9', [1, 2, 3, 9]),
        (b'* ESEARCH (TAG "a1") UID', []),
        (b"* ESEARCH", []),
        (b"* 3 EXISTS", None),
        (b"*", None),
    ],
)
def test_searches_are_read(line: bytes, expected: list[int] | None) -> None:
    assert searched(line) == expected


def searched(line: bytes) -> list[int] | None:
    pieces = uids.read_found((line,))
    return None if pieces is None else [uid for piece in pieces for uid in piece]


def vanished(line: bytes) -> list[int] | None:
    found = uids.read_vanished(line)
    return None if found is None else [uid for low, high in found[1] for uid in range(low, high + 1)]


def unshift(quoted: str) -> str:
    """Read modified UTF-7 (RFC 3501 §5.1.3): the reference for the writer."""
    text = quoted[1:-1].replace('\\"', '"').replace("\\\\", "\\")
    pieces, at = [], 0
    while at < len(text):
        if text[at] != "&":
            pieces.append(text[at])
            at += 1
            continue
        end = text.index("-", at)
        packed = text[at + 1 : end].replace(",", "/")
        padded = packed + "=" * (-len(packed) % 4)
        pieces.append(base64.b64decode(padded).decode("utf-16-be") if packed else "&")
        at = end + 1
    return "".join(pieces)


folder_names = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=30)


@given(folder_names)
def test_folder_names_survive_modified_utf7(name: str) -> None:
    quoted = names.encode_folder(name)
    assert quoted.isascii()
    assert unshift(quoted) == name


@given(folder_names, st.booleans(), st.sampled_from(["quoted", "literal"]))
def test_a_folder_is_listed_under_the_name_by_which_it_is_asked_for(name: str, utf8: bool, form: str) -> None:
    quoted = names.encode_folder(name, utf8=utf8).encode()
    raw = re.sub(rb"\\(.)", rb"\1", quoted[1:-1])
    listed = b"{%d}\r\n%b" % (len(raw), raw) if form == "literal" else quoted
    (response,) = Framer(LIMIT).feed(b'* LIST (\\Sent \\HasChildren) "\\\\" ' + listed + b"\r\n")
    expected = names.FolderListing(name, "\\", frozenset({"\\sent", "\\haschildren"}))
    assert names.read_folder(response, utf8=utf8) == (expected, raw)


@given(st.binary(max_size=40), st.booleans())
def test_any_bytes_have_a_name(raw: bytes, utf8: bool) -> None:
    names.decode_folder(raw, utf8=utf8).encode()  # and it is text


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"Entw&APw-rfe", "Entwürfe"),
        (b"R&D", "R&D"),
        (b"R&-D", "R&D"),
        (b"&2D0-", "&2D0-"),  # half of a surrogate pair
        (b"&AGE", "&AGE"),
        (b"&A-", "&A-"),
        (b"caf\xc3\xa9", "café"),
        (b"caf\xe9", "café"),
    ],
)
def test_a_name_that_is_encoded_badly_is_what_can_be_read_of_it(raw: bytes, name: str) -> None:
    assert names.decode_folder(raw) == name


def test_folder_names_as_the_rfc_has_them() -> None:
    assert names.encode_folder("~peter/mail/台北/日本語") == '"~peter/mail/&U,BTFw-/&ZeVnLIqe-"'
    assert names.encode_folder("Old & Co") == '"Old &- Co"'
    with pytest.raises(ValueError, match="control"):
        names.encode_folder("a\r\nb")


@pytest.mark.parametrize(
    ("line", "code", "text"),
    [
        (b"* OK [UIDVALIDITY 7] fine", (b"UIDVALIDITY", b"7"), "fine"),
        (b"NO [authenticationfailed] no", (b"AUTHENTICATIONFAILED", b""), "no"),
        (b"OK", (b"", b""), ""),
        (b"BYE go away", (b"", b""), "go away"),
    ],
)
def test_status_lines_are_taken_apart(line: bytes, code: tuple[bytes, bytes], text: str) -> None:
    assert reply.response_code(line) == code
    assert reply.human_text(line.removeprefix(b"* ")) == text


# --- identity --------------------------------------------------------------------------------------------------------

HEADER = (
    b"Received: from x\r\n by y\r\nFrom: A <a@x.example>\r\nSubject: s\r\nMessage-ID:\r\n <1@x.example>\r\n"
    b"date: Mon, 23 Nov 2026 10:00:00 +0000\r\nFrom: Second <b@x.example>\r\n\r\nFrom: body\r\n"
)
FIELDS = (
    b"From: A <a@x.example>\r\nMessage-ID: <1@x.example>\r\nDate: Mon, 23 Nov 2026 10:00:00 +0000\r\n"
    b"From: Second <b@x.example>\r\n\r\n"
)
AT = datetime(2026, 11, 23, 10, tzinfo=UTC)


def test_a_message_and_its_listed_header_are_the_same_message() -> None:
    assert fingerprint(HEADER, 99, AT) == fingerprint(FIELDS, 99, AT)
    assert fingerprint(HEADER.replace(b"\r\n", b"\n"), 99, AT) == fingerprint(FIELDS, 99, AT)


@pytest.mark.parametrize("place", range(4))
def test_each_of_its_marks_makes_another_message(place: int) -> None:
    changed = [
        fingerprint(FIELDS.replace(b"<1@", b"<2@"), 99, AT),
        fingerprint(FIELDS.replace(b"A <a", b"B <a"), 99, AT),
        fingerprint(FIELDS, 98, AT),
        fingerprint(FIELDS, 99, AT.replace(second=1)),
    ]
    assert changed[place] != fingerprint(FIELDS, 99, AT)


def test_a_message_without_marks_has_a_fingerprint_of_64_bits() -> None:
    assert fingerprint(b"\r\nFrom: body", 0, None) == fingerprint(b"", 0, None)
    assert -(2**63) <= fingerprint(b"", 0, None) < 2**63


@given(st.binary(max_size=300))
def test_any_bytes_have_a_fingerprint(raw: bytes) -> None:
    found = fingerprint(raw, len(raw), AT)
    assert -(2**63) <= found < 2**63
    assert outline_of(found) == outline(len(raw), AT)


def test_an_outline_is_what_a_listing_tells() -> None:
    assert outline(99, AT) == outline(99, AT)
    assert len({outline(size, AT) for size in range(1000)}) > 990
    assert outline(99, AT) != outline(99, None)
    assert outline_of(outline(99, AT) << 32) == outline(99, AT)


def test_an_object_id_tells_its_kind() -> None:
    assert object_id(b"emailid", b"M1") == object_id(b"emailid", b"M1")
    assert object_id(b"emailid", b"1") != object_id(b"gm", b"1")
    assert -(2**63) <= object_id(b"gm", b"1") < 2**63


def test_fields_that_only_sent_mail_has_do_not_count() -> None:
    assert set(SENT_FIELDS) > {"MESSAGE-ID", "DATE", "FROM"}
    assert fingerprint(b"In-Reply-To: <0@x>\r\nReferences: <1@x>\r\n" + FIELDS, 99, AT) == fingerprint(FIELDS, 99, AT)


@given(st.lists(st.tuples(st.integers(1, 60), st.integers(0, 9)), max_size=12), st.integers(0, 70))
def test_of_runs_that_overlap_the_highest_are_kept_each_once(runs: list[tuple[int, int]], most: int) -> None:
    spelled = [(low, low + length) for low, length in runs]
    named = sorted({uid for low, high in spelled for uid in range(low, high + 1)})
    assert uids.expand(spelled, most) == tuple(named[-most:] if most else ())
