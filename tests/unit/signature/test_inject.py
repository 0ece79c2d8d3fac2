"""Splicing: what changes in the one part, and that nothing else does."""

from __future__ import annotations

import base64
import binascii

import pytest

from gateway.mime.compose import Image
from gateway.outbound.signature.block import RenderedSignature, html_block
from gateway.outbound.signature.inject import ALREADY_THERE, Injected, inject
from tests.support.message_laws import check_splice, leaves, no_new_defects, parse, text_of

ANA = RenderedSignature("<p>Ana</p>", "Ana")
LIMA = RenderedSignature("<p>Límá</p>", "Límá")
UTF_8 = b"Content-Type: text/plain; charset=utf-8"
PDF = "Content-Type: application/pdf"
GIF = "Content-Type: image/gif"
LOGO = Image("logo@x.example", "image/png", "image1.png", bytes(100))
PICTURE = RenderedSignature('<img src="cid:logo@x.example" alt="Example">', "Ana", (LOGO,))


def mail(*lines: str, charset: str = "utf-8") -> bytes:
    return "\r\n".join(("From: a@example.com", *lines)).encode(charset)


def once(raw: bytes, signature: RenderedSignature) -> bytes:
    injected = inject(raw, signature)
    assert (injected.placed, injected.reason) == (True, "")
    assert inject(injected.raw, signature) == Injected(injected.raw, True, ALREADY_THERE)
    check_splice(raw, injected.raw, signature)
    no_new_defects(raw, injected.raw)
    return injected.raw


def test_plain_text_gets_the_block_behind_a_blank_line() -> None:
    assert once(mail("Subject: x", "", "Hello"), ANA) == mail("Subject: x", "", "Hello", "", "-- ", "Ana", "")
    assert once(mail("Subject: x", "", "Hello", "", ""), ANA) == mail(
        "Subject: x", "", "Hello", "", "-- ", "Ana", "", ""
    )
    assert once(mail("Subject: x", "", ""), ANA) == mail("Subject: x", "", "-- ", "Ana", "")


@pytest.mark.parametrize(
    ("fields", "body", "charset", "after"),
    [
        ([], b"Hello", "us-ascii", [UTF_8, b"quoted-printable", b"MIME-Version: 1.0"]),
        (["Content-Type: text/plain"], b"Hello", "us-ascii", [UTF_8, b"quoted-printable"]),
        (
            ["Content-Type: text/plain; charset=us-ascii; format=flowed"], b"Hello", "us-ascii",
            [UTF_8 + b"; format=flowed", b"quoted-printable"],
        ),
        (
            ['Content-Type: text/plain;', '\tcharset="us-ascii"', "Content-Transfer-Encoding: 7bit"],
            b"Hello", "us-ascii",
            [b"Content-Type: text/plain;\r\n\tcharset=utf-8\r\nContent-Transfer-Encoding: quoted-printable\r\n"],
        ),
        (
            ["Content-Type: text/plain; charset=iso-8859-1", "Content-Transfer-Encoding: 8bit"],
            b"Ol\xe1", "iso-8859-1",
            [b"charset=iso-8859-1\r\nContent-Transfer-Encoding: 8bit", b"Ol\xe1\r\n\r\n-- \r\nL\xedm\xe1\r\n"],
        ),
        (
            ["Content-Type: text/plain; charset=utf-8", "Content-Transfer-Encoding: 8bit"], b"Hello", "utf-8",
            [b"Content-Transfer-Encoding: quoted-printable", b"Hello\r\n\r\n--=20\r\nL=C3=ADm=C3=A1"],
        ),
        (
            ["Content-Type: text/plain; charset=iso-8859-7", "Content-Transfer-Encoding: quoted-printable"],
            b"=C1=EB=F6=E1", "iso-8859-7",
            [b"charset=utf-8\r\nContent-Transfer-Encoding: base64"],
        ),
        (
            ["Content-Type: text/plain; charset=koi8-r", "Content-Transfer-Encoding: base64"],
            base64.b64encode("Привет".encode("koi8-r")), "koi8-r",
            [b"charset=utf-8\r\nContent-Transfer-Encoding: base64", base64.b64encode("Привет".encode())[:12]],
        ),
        (
            ["Content-Type: text/plain; charset=utf-16", "Content-Transfer-Encoding: base64"],
            base64.b64encode("Hello\r\n".encode("utf-16")), "utf-16",
            [b"charset=utf-16", b"base64"],
        ),
        (
            ["Content-Type: text/plain; charset=iso-2022-jp"], "日本\r\n".encode("iso-2022-jp"), "iso-2022-jp",
            [b"charset=utf-8\r\nContent-Transfer-Encoding: quoted-printable"],
        ),
        (["Content-Type: text/plain; charset*0=us-; charset*1=ascii"], b"Hi", "us-ascii", [UTF_8]),
    ],
    ids=["no-mime", "no-charset", "flowed", "folded-charset", "latin-1-8bit", "ascii-in-8bit", "greek-qp",
         "cyrillic-base64", "utf-16", "iso-2022-jp", "charset-in-pieces"],
)  # fmt: skip
def test_letters_go_in_as_the_part_can_take_them(
    fields: list[str], body: bytes, charset: str, after: list[bytes]
) -> None:
    raw = mail(*fields, "", "") + body
    done = once(raw, LIMA)
    assert all(expected in done for expected in after)
    assert "-- \nLímá\n" in text_of(parse(done))


def test_a_stateful_charset_is_kept_when_the_letters_fit() -> None:
    raw = mail("Content-Type: text/plain; charset=iso-2022-jp", "", "日本", "", charset="iso-2022-jp")
    done = once(raw, RenderedSignature("", "山田"))
    assert done == mail(
        "Content-Type: text/plain; charset=iso-2022-jp", "", "日本", "", "-- ", "山田", "", charset="iso-2022-jp"
    )


def test_a_sign_inside_a_letter_is_no_quote() -> None:
    text = "ソ>ー"  # in iso-2022-jp "ー" is the octets "!<"
    raw = mail("Content-Type: text/html; charset=iso-2022-jp", "", f"<p>{text}</p>", "", charset="iso-2022-jp")
    assert f"<p>{text}</p>" in text_of(parse(once(raw, ANA)))


BOUNDARY = "a boundary of the message stands where the signature would be"
NO_TEXT = "no text that the signature could follow"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["Content-Type: text/plain; charset=x-unheard-of", "", "x"], "the charset 'x-unheard-of' is not known"),
        (["Content-Transfer-Encoding: x-uuencode", "", "x"], "the transfer encoding 'x-uuencode' cannot be read"),
        (
            ["Content-Transfer-Encoding: base64", "", "SGVsbG8=", "footer"],
            "the transfer encoding 'base64' cannot be read",
        ),
        (["Content-Transfer-Encoding: base64", "", "S"], "the transfer encoding 'base64' cannot be read"),
        (["", "Ol\xe1"], "the text is not us-ascii"),
        (["Content-Type: text/plain; charset=utf-16", "", "abc"], "the text is not utf-16"),
        (["Content-Type: text/plain; charset=iso-8859-7", "", "\xae"], "the text is not iso-8859-7"),
        (["Content-Type: text/plain", "Content-Type: a/b", "", "x"], "odd structure: two fields named content-type"),
        ([PDF, "", "x"], NO_TEXT),
        (["Content-Type: text/plain; name=a.txt", "", "x"], NO_TEXT),
        (["Content-Disposition: attachment", "", "x"], NO_TEXT),
        (["Content-Type: multipart/digest; boundary=b", "", "--b", "", "x", "--b--"], NO_TEXT),
        (["Content-Type: multipart/related; boundary=b", "", "x"], NO_TEXT),
        (
            ["Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/calendar", "", "x", "--b--"],
            NO_TEXT,
        ),
        (
            ["Content-Type: multipart/mixed; boundary=b", "", "--b", PDF, "", "x", "--b", *["--bx"] * 10_001],
            "odd structure: too many lines that look like delimiters",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_in_doubt_nothing_is_changed(lines: list[str], reason: str) -> None:
    raw = mail(*lines, charset="latin-1")
    assert inject(raw, LIMA) == Injected(raw, False, reason)


def test_unlabelled_eight_bit_text_takes_plain_letters() -> None:
    raw = b"From: a@example.com\r\n\r\nOl\xe1\r\n"
    assert inject(raw, ANA).raw == raw + b"\r\n-- \r\nAna\r\n"
    labelled = inject(b"From: a@example.com\r\n\r\nOl\xc3\xa1\r\n", LIMA).raw
    assert text_of(parse(labelled)) == "Olá\n\n-- \nLímá\n"


def test_flowed_text_stays_flowed() -> None:
    raw = mail("Content-Type: text/plain; charset=utf-8; format=flowed; delsp=yes", "", "one ", "two", "")
    done = once(raw, RenderedSignature("", "> Ana\n From Lima\nFrom there\nend"))
    assert done.endswith(b"one \r\ntwo\r\n\r\n-- \r\n > Ana\r\n  From Lima\r\n From there\r\nend\r\n")


def test_an_escape_is_never_cut() -> None:
    raw = mail(
        "Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "",
        "<p>a=C3=A1 =", "=20<div class=3D\"gmail_quote\">hi</div></p>",
    )  # fmt: skip
    done = once(raw, ANA)
    assert b'<p>a=C3=A1 =\r\n=20\r\n<div class=3D"mail-gateway-signature"' in done
    assert done.endswith(b'</div>\r\n<br>\r\n<div class=3D"gmail_quote">hi</div></p>\r\n'.removesuffix(b"\r\n"))


def test_a_blank_in_front_of_the_block_is_held() -> None:
    raw = mail(
        "Content-Type: text/html; charset=utf-8", "Content-Transfer-Encoding: quoted-printable", "",
        "<p>Hello</p> <div class=3D\"gmail_quote\">hi</div>",
    )  # fmt: skip
    assert b"<p>Hello</p> =\r\n\r\n<div" in once(raw, ANA)


def test_a_soft_line_break_at_the_end_does_not_swallow_the_block() -> None:
    raw = mail("Content-Transfer-Encoding: quoted-printable", "", "Hello=")
    assert text_of(parse(once(raw, ANA))) == "Hello\n\n-- \nAna\n"


def test_long_lines_become_quoted_printable() -> None:
    long = RenderedSignature("<p>" + "x " * 600 + "</p>", "y" * 1_200)
    for kind in ("plain", "html"):
        done = once(mail(f"Content-Type: text/{kind}", "", "Hello"), long)
        assert b"Content-Transfer-Encoding: quoted-printable" in done
        assert max(map(len, done.split(b"\r\n"))) <= 76


ALTERNATIVE = (
    "Content-Type: multipart/alternative; boundary=b", "", "--b", "Content-Type: text/plain", "", "Hello", "--b",
    "Content-Type: text/html", "", "<p>Hello</p>", "--b--", "",
)  # fmt: skip


def test_both_alternatives_get_it() -> None:
    assert once(mail(*ALTERNATIVE), ANA) == mail(
        *ALTERNATIVE[:6], "", "-- ", "Ana", "", "--b", *ALTERNATIVE[7:10],
        html_block(ANA).decode(), "", "--b--", "",
    )  # fmt: skip


def test_only_the_missing_one_is_added() -> None:
    half = mail(*ALTERNATIVE[:6], "", "-- ", "Ana", "", *ALTERNATIVE[6:])
    assert set(check_splice(half, inject(half, ANA).raw, ANA)) == {"text/html"}


def test_an_older_signature_in_the_quote_does_not_count() -> None:
    raw = mail("", "Hello", "", "On 1 Jan 2026, Bo wrote:", "> -- ", "> Ana", "")
    assert b"Hello\r\n\r\n-- \r\nAna\r\n\r\nOn 1 Jan" in once(raw, ANA)
    outlook = mail("", "Hello", "", "-----Original Message-----", "From: x", "", "-- ", "Ana", "")
    assert b"Hello\r\n\r\n-- \r\nAna\r\n\r\n-----Or" in once(outlook, ANA)


def test_a_bodyless_part_that_shares_its_blank_line_is_filled() -> None:
    raw = mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/plain", "", "--b--", "")
    for signature in (ANA, LIMA):
        done = inject(raw, signature)
        assert done.placed
        assert text_of(leaves(parse(done.raw))[0]).startswith(f"-- \n{signature.text}")
        assert inject(done.raw, signature).raw == done.raw
        no_new_defects(raw, done.raw)


@pytest.mark.parametrize(
    ("lines", "shape"),
    [
        (["Content-Type: text/html", "", "<p>Hello</p>"], ["multipart/related", "text/html", "image/png"]),
        (ALTERNATIVE, ["multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png"]),
        (
            ["Content-Type: multipart/related; boundary=r", "", "--r", "Content-Type: text/html", "", "<p>x</p>", "--r",
             GIF, "", "x", "--r--", ""],
            ["multipart/related", "text/html", "image/gif", "image/png"],
        ),
        (
            ["Content-Type: multipart/related; boundary=r", "", "--r", *ALTERNATIVE, "--r", GIF, "", "x",
             "--r--", ""],
            ["multipart/related", "multipart/alternative", "text/plain", "text/html", "image/gif", "image/png"],
        ),
        (
            ["Content-Type: multipart/related; boundary=r; start=\"<main>\"", "", "--r", GIF, "", "x",
             "--r", "Content-Type: text/html", "Content-ID: <main>", "", "<p>x</p>", "--r--", ""],
            ["multipart/related", "image/gif", "text/html", "image/png"],
        ),
        (
            ["Content-Type: multipart/related; boundary=r", "", "--r", "Content-Type: text/html", "", "<p>x</p>"],
            ["multipart/related", "text/html", "image/png"],
        ),
        (
            ["Content-Type: multipart/mixed; boundary=m", "", "--m", "Content-Type: text/html; charset=utf-8",
             "Content-Transfer-Encoding: 8bit", "", "<p>á</p>", "--m", GIF, "", "x", "--m--", ""],
            ["multipart/mixed", "multipart/related", "text/html", "image/png", "image/gif"],
        ),
    ],
    ids=["html", "alternative", "related", "outer-related", "named-root", "related-without-end", "mixed"],
)  # fmt: skip
def test_pictures_stand_beside_the_html(lines: list[str], shape: list[str]) -> None:
    done = once(mail(*lines), PICTURE)
    message = parse(done)
    assert [part.get_content_type() for part in message.walk()] == shape
    (picture,) = [part for part in message.walk() if part["Content-ID"] == "<logo@x.example>"]
    assert picture.get_payload(decode=True) == LOGO.data
    assert picture.get_content_disposition() == "inline"


def test_the_root_s_content_fields_move_with_the_html() -> None:
    raw = mail(
        "Content-Type: text/html", "Subject: x", "Content-Transfer-Encoding: 7bit", "Content-Language: en", "", "x"
    )
    message = parse(once(raw, PICTURE))
    assert message.keys() == ["From", "Content-Type", "Subject", "MIME-Version"]
    assert leaves(message)[0].keys() == ["Content-Type", "Content-Transfer-Encoding", "Content-Language"]


@pytest.mark.parametrize("signature", [ANA, LIMA, PICTURE], ids=["ascii", "letters", "picture"])
def test_a_mail_of_nothing_but_files_gets_a_text(signature: RenderedSignature) -> None:
    raw = mail("MIME-Version: 1.0", "Content-Type: multipart/mixed; boundary=b", "", "--b", PDF,
               "", "x", "--b", "Content-Type: message/rfc822", "", "Subject: y", "", "z", "--b--", "")  # fmt: skip
    injected = inject(raw, signature)
    assert (injected.placed, injected.reason) == (True, "")
    kinds = [leaf.get_content_type() for leaf in leaves(parse(injected.raw))]
    assert kinds[:2] == ["text/plain", "text/html"]
    assert kinds[-2:] == ["application/pdf", "message/rfc822"]
    assert injected.raw.endswith(raw.partition(b"\r\n\r\n")[2])
    assert inject(injected.raw, signature) == Injected(injected.raw, True, ALREADY_THERE)
    no_new_defects(raw, injected.raw)


def test_a_block_that_moves_its_own_place_is_still_known_again() -> None:
    # With the block in it, the line and "Von:" look like the head of an Outlook quote; without it they do not.
    raw = mail("", "", "________________________________", "Von: x", "", "On 1 Jan 2026, Bo wrote:", "> hi", "")
    once(raw, ANA)


@pytest.mark.parametrize("kind", ["text/plain", "application/pdf"], ids=["text", "files-only"])
def test_a_boundary_that_the_signature_says_is_refused(kind: str) -> None:
    raw = mail(
        "Content-Type: multipart/mixed; boundary=Ana", "", "--Ana", f"Content-Type: {kind}", "", "x", "--Ana--", ""
    )
    says_it = RenderedSignature("", "--Ana")
    assert inject(raw, says_it) == Injected(raw, False, BOUNDARY)


def test_a_line_is_not_cut_so_that_it_becomes_a_delimiter() -> None:
    raw = mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/html", "", "--b--</body>",
               "--b--", "")  # fmt: skip
    assert inject(raw, ANA) == Injected(raw, False, BOUNDARY)


def test_a_text_file_beside_the_text_is_left_alone() -> None:
    raw = mail("Content-Type: multipart/mixed; boundary=b", "", "--b", 'Content-Type: text/plain; name="log.txt"', "",
               "log", "--b", "Content-Type: text/plain", "", "Hello", "--b--", "")  # fmt: skip
    assert b"log\r\n--b" in once(raw, ANA)


LONG = RenderedSignature("<p>Ana Lima</p>", "Ana Lima, who answers what is asked\nSupport – Lisboa")


EIGHT_BIT = "Content-Transfer-Encoding: 8bit"
LONG_TEXT = "-- \nAna Lima, who answers what is asked\nSupport – Lisboa"


@pytest.mark.parametrize(
    ("fields", "lines"),
    [
        (EIGHT_BIT, ["Hello", "", "--", "Ana Lima, who answers", "what is asked", "Support – Lisboa"]),
        (EIGHT_BIT, ["Hello", "-- ", "", "Ana Lima, who answers what is asked  ", "", "Support – Lisboa"]),
        (EIGHT_BIT, ["--\u00a0", "Ana Lima, who answers what is asked", "Support\u00a0– Lisboa", "more"]),
        (EIGHT_BIT, ["Hello", "-- ", "Ana Lima, who answers ", " what is asked", "Support – Lisboa"]),
        ("Content-Transfer-Encoding: base64", [base64.b64encode(LONG_TEXT.encode()).decode()]),
    ],
    ids=["cut-elsewhere", "blank-lines", "hard-blanks", "flowed", "base64"],
)
def test_a_block_that_a_client_wrote_in_its_own_way_is_known_again(fields: str, lines: list[str]) -> None:
    raw = mail(fields, "Content-Type: text/plain; charset=utf-8", "", *lines)
    assert inject(raw, LONG) == Injected(raw, True, ALREADY_THERE)


@pytest.mark.parametrize(
    "line",
    ["Ana", "-- \r\nAnabel", "-- Ana", "> -- \r\n> Ana", "-- \r\nHello\r\nAna"],
    ids=["no-delimiter", "longer-name", "one-line", "quoted", "other-words"],
)
def test_what_is_not_the_whole_block_is_none(line: str) -> None:
    assert inject(mail("", "Hello", line, ""), ANA).reason == ""


@pytest.mark.parametrize("name", ["mail-gateway-signature", "x_mail-gateway-signature", "m_-71mail-gateway-signature"])
def test_the_mark_is_known_under_the_names_that_webmail_gives_it(name: str) -> None:
    raw = mail("Content-Type: text/html", "", f'<p>Hello</p><div class="a {name}"><p>Ana</p></div>')
    assert inject(raw, ANA) == Injected(raw, True, ALREADY_THERE)


def pieces(*texts: str, between: str = GIF) -> bytes:
    lines = ["Content-Type: multipart/mixed; boundary=b", ""]
    for index, text in enumerate(texts):
        lines += ["--b", between, "", "x"] if index else []
        lines += ["--b", "Content-Type: text/plain", "", text]
    return mail(*lines, "--b--", "")


@pytest.mark.parametrize("between", [GIF, PDF + "; name=a.pdf", "Content-Type: message/rfc822"])
def test_a_text_in_pieces_is_signed_behind_the_last(between: str) -> None:
    done = once(pieces("one", "two", "three", between=between), ANA)
    assert b"three\r\n\r\n-- \r\nAna\r\n" in done
    assert done.count(b"-- \r\n") == 1


def test_a_text_in_pieces_is_signed_above_the_quote() -> None:
    done = once(pieces("one\r\n\r\nOn 1 Jan 2026, Bo wrote:\r\n> hi", "> ho"), ANA)
    assert b"one\r\n\r\n-- \r\nAna\r\n\r\nOn 1 Jan" in done


def test_a_piece_with_the_block_is_enough() -> None:
    raw = pieces("one\r\n\r\n-- \r\nAna", "two")
    assert inject(raw, ANA) == Injected(raw, True, ALREADY_THERE)


@pytest.mark.parametrize(
    "footer",
    [["Content-Type: text/plain"], ["Content-Type: text/plain", "Content-Disposition: inline"]],
    ids=["right-behind", "says-inline"],
)
def test_what_a_list_put_behind_is_no_piece(footer: list[str]) -> None:
    parted = ["--b", PDF, "", "x"] if len(footer) == 2 else []
    raw = mail("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/plain", "", "Hello",
               *parted, "--b", *footer, "", "A list", "--b--", "")  # fmt: skip
    assert b"Hello\r\n\r\n-- \r\nAna\r\n" in once(raw, ANA)


def test_pieces_of_html_keep_their_place_when_pictures_come_beside_one() -> None:
    raw = pieces("<p>one</p>", "<p>two</p>").replace(b"text/plain", b"text/html")
    kinds = [part.get_content_type() for part in parse(once(raw, PICTURE)).walk()]
    assert kinds == ["multipart/mixed", "text/html", "image/gif", "multipart/related", "text/html", "image/png"]


def test_a_signature_without_text_brings_no_delimiter() -> None:
    silent = RenderedSignature("<p>Ana</p>", "")
    assert inject(mail("", "Hello", ""), silent) == Injected(mail("", "Hello", ""), False, "the signature has no text")
    assert b"-- \r\n" not in inject(mail(*ALTERNATIVE), silent).raw


def test_a_reason_quotes_no_more_than_a_line_of_the_message() -> None:
    for odd in (f"Content-Type: message/{'x' * 5_000}", f"Content-Transfer-Encoding: {'x' * 5_000}"):
        assert len(inject(mail(odd, "", "x"), ANA).reason) <= 100
    assert inject(mail("Content-Type: message/x\ty\x1b[1m", "", "x"), ANA).reason == "a message/x y [1m as a whole"


@pytest.mark.parametrize("width", [40, 900, 970, 2_000])
def test_a_charset_is_named_without_a_line_too_long(width: int) -> None:
    for fields in (
        f"Content-Type: text/plain; x={'y' * width}",
        f"Content-Type: text/plain; charset=a; x={'y' * width}",
    ):
        done = once(mail(fields.replace("charset=a", "charset=ascii"), "", "Hello"), LIMA)
        assert parse(done).get_content_charset() == "utf-8"
        assert max(map(len, done.split(b"\r\n"))) <= 998


def test_a_related_part_that_was_cut_off_within_a_header_gets_no_picture() -> None:
    raw = mail("Content-Type: multipart/related; boundary=r", "", "--r", "Content-Type: text/html", "", "<p>x</p>",
               "--r", "Content-Type: image/gif", "")  # fmt: skip
    assert inject(raw, PICTURE) == Injected(raw, False, "odd structure: the last part has no body")
    assert inject(raw, ANA).placed


def test_a_return_at_the_end_stays_the_part_s_when_a_picture_follows() -> None:
    raw = mail("Content-Type: multipart/related; boundary=r", "", "--r", "Content-Type: text/html", "", "<p>x</p>",
               "--r", GIF, "", "x").replace(b"\r\n", b"\n") + b"\r"  # fmt: skip
    done = inject(raw, PICTURE)
    assert done.placed
    assert b"\n\nx\r\r\n--r\n" in done.raw
    alone = b"Content-Type: multipart/mixed; boundary=m\n\n--m\nContent-Type: text/html\n\n<p>x</p></body>\r"
    assert b"</body>\r\r\n--=_related" in inject(alone, PICTURE).raw


def stripped(raw: bytes, signature: RenderedSignature = ANA) -> bytes:
    done = inject(raw, signature, strip_client_signature=True)
    assert (done.placed, done.reason) == (True, "")
    for again in (True, False):
        assert inject(done.raw, signature, strip_client_signature=again) == Injected(done.raw, True, ALREADY_THERE)
    return done.raw


def test_the_client_s_own_signature_makes_room_for_ours() -> None:
    raw = mail("", "Hello", "", "-- ", "Anabel, sent from a phone", "")
    assert stripped(raw) == mail("", "Hello", "", "-- ", "Ana", "")
    assert b"phone" in once(raw, ANA)


def test_it_goes_from_html_and_text_and_stays_in_the_quote() -> None:
    mine, theirs = "<div class=gmail_signature>Anabel, phone</div>", "<div class=gmail_signature>Bo, phone</div>"
    raw = mail(*ALTERNATIVE[:5], "Hello", "-- ", "Anabel, phone", "", "On 1 Jan 2026, Bo wrote:", "> -- ", "> Bo",
               *ALTERNATIVE[6:9], f"<p>Hello</p>{mine}<blockquote type=cite><p>Hi</p>{theirs}</blockquote>",
               *ALTERNATIVE[10:])  # fmt: skip
    done = stripped(raw)
    assert b"Anabel" not in done
    assert b"Hello\r\n\r\n-- \r\nAna\r\n\r\nOn 1 Jan 2026, Bo wrote:\r\n> -- \r\n> Bo" in done
    assert done.count(theirs.encode()) == 1
    assert done.index(b"mail-gateway-signature") < done.index(b"<blockquote")


@pytest.mark.parametrize("encoding", ["quoted-printable", "base64"])
def test_it_goes_in_every_encoding(encoding: str) -> None:
    text = "Grüße\r\n\r\n-- \r\nAnabel, unterwegs\r\n".encode()
    body = base64.encodebytes(text) if encoding == "base64" else binascii.b2a_qp(text, istext=False)
    fields = ("Content-Type: text/plain; charset=utf-8", f"Content-Transfer-Encoding: {encoding}")
    raw = mail(*fields, "", body.decode())
    assert text_of(parse(stripped(raw, LIMA))) == "Grüße\n\n-- \nLímá\n"


def test_our_own_block_is_not_taken_for_the_client_s() -> None:
    raw = once(mail("", "Hello", ""), ANA)
    assert inject(raw, ANA, strip_client_signature=True) == Injected(raw, True, ALREADY_THERE)
