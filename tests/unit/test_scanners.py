"""What scanners are asked, and what is made of their answers, good and bad."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import Unavailable
from gateway.inbound import rspamd, spamd
from gateway.inbound.scoring import Letter, Place, parse_place
from gateway.model import Score


async def nothing() -> bytes:
    return b""


def letter(**keys: str | None) -> Letter:
    return Letter(5, nothing, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "place", "shown"),
    [
        ("rspamd+http://127.0.0.1:11333", Place("rspamd", False, "127.0.0.1", 11333), "rspamd at 127.0.0.1:11333"),
        ("rspamd+https://Scan.example:443/", Place("rspamd", True, "scan.example", 443), "rspamd at scan.example:443"),
        ("spamd://[::1]:783", Place("spamd", False, "::1", 783), "spamd at [::1]:783"),
    ],
)
def test_a_place_is_read(url: str, place: Place, shown: str) -> None:
    assert parse_place(url) == place
    assert str(place) == shown


# --- rspamd ----------------------------------------------------------------------------------------------------------


def answer(**keys: object) -> bytes:
    return json.dumps({"is_skipped": False, "score": 5.0, "symbols": {}, **keys}).encode()


def test_rspamd_is_told_the_envelope() -> None:
    envelope = {"return_path": "a+b@c.example", "recipient": "us@d.example", "ip": "2001:db8::1", "helo": "mx.example"}
    told = dict(rspamd.describe(letter(id="1r7hq2x0", **envelope)))
    settings = json.loads(told.pop("Settings"))
    assert told == {
        "From": "a+b@c.example",
        "Rcpt": "us@d.example",
        "Deliver-To": "us@d.example",
        "Queue-Id": "1r7hq2x0",
        "IP": "2001:db8::1",
        "Helo": "mx.example",
    }
    assert "HFILTER_HOSTNAME_UNKNOWN" in settings["symbols_disabled"]


def test_what_a_client_said_of_itself_counts_only_with_its_address() -> None:
    assert [name for name, _ in rspamd.describe(letter(helo="mx.example"))] == ["Settings"]


@given(st.text(), st.text(), st.text())
def test_no_envelope_can_forge_a_field(return_path: str, ip: str, helo: str) -> None:
    for _, value in rspamd.describe(letter(return_path=return_path, recipient=return_path, ip=ip, helo=helo)):
        assert value.isascii()
        assert value.isprintable()


@pytest.mark.parametrize(
    "path", ["", None, "<>", "@", "a@b@c", "a b@c", "a@b\r\nX: y", "ü@b.example", "a@" + "b" * 300]
)
def test_a_return_path_that_is_no_plain_address_is_not_told(path: str | None) -> None:
    assert "From" not in dict(rspamd.describe(letter(return_path=path)))


def test_a_score_comes_with_what_weighs_most() -> None:
    symbols = {
        "LITTLE": {"score": 0.1},
        "NOTHING": {"score": 0.0},
        "GOOD": {"score": -3.0},
        "BAD": {"score": 7.5},
        "ODD": "text",
        "WORSE": {"score": float("nan")},
    }
    score = rspamd.read_score(200, "OK", answer(score=4.6, symbols=symbols))
    assert score == Score(4.6, "rspamd", ("BAD", "GOOD", "LITTLE"))


def test_what_a_rule_has_decided_at_once_has_a_score_too() -> None:
    assert rspamd.read_score(200, "OK", answer(is_skipped=True, score=15)).value == 15


def test_symbols_are_few_short_and_of_one_line() -> None:
    symbols = {f"S{number}\n{'x' * 100}": {"score": 1000 - number} for number in range(100)}
    score = rspamd.read_score(200, "OK", answer(symbols=symbols))
    assert len(score.symbols) == 20
    assert all(len(symbol) <= 60 and "\n" not in symbol for symbol in score.symbols)
    assert score.symbols[0].startswith("S0 ")


@pytest.mark.parametrize(
    ("status", "body", "said"),
    [
        (200, b"", "has not answered in JSON"),
        (200, b"[" * 100_000, "has not answered in JSON"),
        (200, b"\xff\xfe\x00", "has not answered in JSON"),
        (200, b"[]", "a form that we do not know"),
        (200, b"{}", "gives no score"),
        (200, b'{"error": "task timeout"}', "gives no score: task timeout"),
        (200, answer(score="5"), "has not answered with a number"),
        (200, answer(score=True), "has not answered with a number"),
        (200, answer(score=None), "has not answered with a number"),
        (200, b'{"score": NaN}', "has not answered with a number"),
        (200, b'{"score": Infinity}', "has not answered with a number"),
        (200, b'{"score": 1e999}', "has not answered with a number"),
        (500, b'{"error": "invalid\\r\\n\\u001b[2Jcommand"}', "answers 500 invalid [2Jcommand"),
        (403, b"<html>", "answers 403 Reason"),
    ],
)
def test_an_answer_without_a_score_is_none(status: int, body: bytes, said: str) -> None:
    with pytest.raises(Unavailable) as raised:
        rspamd.read_score(status, "Reason", body)
    assert said in str(raised.value)


@pytest.mark.parametrize("symbols", [None, 5, [], "x", {"A": None}])
def test_symbols_in_an_unknown_form_leave_the_score(symbols: object) -> None:
    assert rspamd.read_score(200, "OK", answer(symbols=symbols)) == Score(5.0, "rspamd")


@given(st.integers(100, 599), st.text(max_size=20), st.binary(max_size=200))
def test_no_answer_of_rspamd_raises_anything_else(status: int, reason: str, body: bytes) -> None:
    for read in (rspamd.read_score, rspamd.read_lesson):
        said = ""
        try:
            read(status, reason, body)
        except Unavailable as error:
            said = str(error)
        assert "\n" not in said


@pytest.mark.parametrize(
    ("status", "reason", "body", "refused"),
    [
        (200, "OK", b'{"success":true}', ""),
        (404, "x", b'{"error":"<2@b.example> has been already learned as spam, ignore it"}', ""),
        (208, "x", b'{"error":"<2@b.example> has been already learned as ham, ignore it"}', ""),
        (204, "all learn conditions denied learning spam", b"", "all learn conditions denied learning spam"),
        (204, "", b"", "it does not say why"),
    ],
)
def test_a_lesson_is_taken_known_or_not_wanted(status: int, reason: str, body: bytes, refused: str) -> None:
    assert rspamd.read_lesson(status, reason, body) == refused


@pytest.mark.parametrize(
    ("status", "body"),
    [(401, b""), (403, b""), (404, b"Not found"), (500, b'{"error":"invalid command"}'), (200, b'{"error":"no disk"}')],
)
def test_a_lesson_that_could_not_be_heard_is_given_again(status: int, body: bytes) -> None:
    with pytest.raises(Unavailable):
        rspamd.read_lesson(status, "no", body)


# --- spamd -----------------------------------------------------------------------------------------------------------


def test_spamd_is_asked_in_its_way() -> None:
    assert spamd.ask_score(12) == b"SYMBOLS SPAMC/1.5\r\nContent-length: 12\r\n\r\n"
    spam = b"TELL SPAMC/1.5\r\nContent-length: 3\r\nMessage-class: spam\r\nSet: local\r\n\r\n"
    assert spamd.ask_lesson(3, True) == spam
    assert spamd.ask_lesson(3, False) == spam.replace(b"spam\r\nSet", b"ham\r\nSet")


@pytest.mark.parametrize(
    ("raw", "score"),
    [
        (
            b"SPAMD/1.1 0 EX_OK\r\nContent-length: 13\r\nSpam: True ; 15.2 / 5.0\r\n\r\nGTUBE,MISSING\n",
            Score(15.2, "spamd", ("GTUBE", "MISSING")),
        ),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -0.4 / 5.0\r\n\r\n\r\n", Score(-0.4, "spamd")),
        (b"SPAMD/1.1 0 EX_OK\r\nSpam: False ; -0.0 / 5.0\r\n\r\n", Score(0.0, "spamd")),
        (b"SPAMD/1.5 0 EX_OK\r\nspam:Yes;7/5\r\n\r\nA\nB,,C", Score(7.0, "spamd", ("A", "B", "C"))),
    ],
    ids=["spam", "ham", "nothing", "another-form"],
)
def test_a_score_of_spamd_is_read(raw: bytes, score: Score) -> None:
    assert repr(spamd.read_score(raw)) == repr(score)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"SPAMD/1.1",
        b"SPAMD/1.1 0 EX_OK\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; nan / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: True ; inf / 5.0\r\n\r\n",
        b"SPAMD/1.1 0 EX_OK\r\nSpam: maybe ; 5.0 / 5.0\r\n\r\n",
        b"SPAMD/1.1 74 EX_IOERR\r\nSpam: True ; 5.0 / 5.0\r\n\r\n",
        b"SPAMD/1.0 76 Bad header line: (EOF during headers)\r\n",
    ],
)
def test_an_answer_of_spamd_without_a_score_is_none(raw: bytes) -> None:
    with pytest.raises(Unavailable, match=r"^spamd "):
        spamd.read_score(raw)


@given(st.binary(max_size=300))
def test_no_answer_of_spamd_raises_anything_else(raw: bytes) -> None:
    for read in (spamd.read_score, spamd.read_lesson, spamd.read_pong):
        for answer in (raw, b"SPAMD/1.1 0 EX_OK\r\nSpam: " + raw):
            said = ""
            try:
                read(answer)
            except Unavailable as error:
                said = str(error)
            assert "\n" not in said


def test_a_lesson_of_spamd_is_taken_or_not() -> None:
    assert spamd.read_lesson(b"SPAMD/1.1 0 EX_OK\r\nDidSet: local\r\nContent-length: 2\r\n\r\n\r\n") == ""
    assert spamd.read_lesson(b"SPAMD/1.1 0 EX_OK\r\nContent-length: 2\r\n\r\n\r\n") == ""
    with pytest.raises(Unavailable, match="--allow-tell"):
        spamd.read_lesson(
            b"SPAMD/1.0 69 Service Unavailable: TELL commands are not enabled, set the --allow-tell switch.\r\n"
        )
