"""The signature of the agent's own mail client: what is it, and what only looks like it. `⟦` and `⟧` are around it."""

from __future__ import annotations

from pathlib import Path

import pytest

from gateway.mime.structure import scan
from gateway.outbound.signature.block import MARKER, RenderedSignature
from gateway.outbound.signature.body import read
from gateway.outbound.signature.client import in_html, in_text
from gateway.outbound.signature.inject import inject
from gateway.outbound.signature.placement import place_in_html

CORPUS = Path(__file__).parents[2] / "data" / "signature"
ANA = RenderedSignature("<p>Ana Lima</p>", "Ana Lima")


def marked(octets: bytes, extents: tuple[tuple[int, int], ...]) -> str:
    for begin, end in sorted(extents, reverse=True):
        octets = octets[:begin] + "⟦".encode() + octets[begin:end] + "⟧".encode() + octets[end:]
    return octets.decode()


@pytest.mark.parametrize(
    "wanted",
    [
        "Hello\n\n⟦-- \nAna\nSupport\n⟧",
        "Hello\n⟦-- \nAna⟧",
        "Hello\r\n\r\n⟦-- \r\nAna\r\n⟧\r\n",
        "Hello\n⟦--\nAna\n⟧",
        "Hello\n\n⟦-- \nAna\n⟧\nOn 1 Jan 2026, Bo wrote:\n> hi\n> -- \n> Bo\n",
        "Hello\n\nOn 1 Jan 2026, Bo wrote:\n> hi\n⟦-- \nAna\n⟧",
        "Hello\n⟦-- \nAna\n⟧\n-----Original Message-----\nFrom: Bo\nSent: 1 Jan 2026\n\nhi\n-- \nBo\n",
        "Hello\n-- \nnot here\n⟦-- \nAna\n⟧",
        "> hi\n\nHello\n⟦-- \nAna\n⟧",
    ],
)
def test_a_signature_in_text_is_found(wanted: str) -> None:
    text = wanted.replace("⟦", "").replace("⟧", "").encode()
    found = in_text(text)
    assert found is not None
    assert marked(text, (found,)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Hello\n",
        "-- \nAna\n",  # nothing would be left
        "\n\n-- \nAna\n",
        "Hello\n> -- \n> Bo\n",
        "Hello\n --\nAna\n",
        "Hello\n---\nAna\n",
        "Hello\n-- Ana\n",
        "Hello\n-- \n" + "line\n" * 40,  # too long for one
        "Hello\n--\n" + "line\n" * 12,
        "Hello\n-----Original Message-----\nFrom: Bo\nSent: 1 Jan 2026\n\nhi\n-- \nBo\n",
    ],
)
def test_what_only_looks_like_one_in_text_stays(text: str) -> None:
    assert in_text(text.encode()) is None


@pytest.mark.parametrize(
    "wanted",
    [
        'Hi⟦<span class="gmail_signature_prefix">-- </span>⟧<br>⟦<div class="gmail_signature">A<div>B</div></div>⟧',
        '<p>Hi</p>⟦<div class="moz-signature">-- <br>Ana</div>⟧</body>',
        "<p>Hi</p>⟦<div class='k9mail-signature'>-- <br>Ana</div>⟧",
        'Hi⟦<div class="elementToProof" id="Signature"><p>Ana</p></div>⟧<div id="appendonsend"></div><hr>x',
        'Hi⟦<div id="ms-outlook-mobile-signature"><div>Get Outlook for iOS</div></div>⟧',
        '<div>Hi</div>⟦<br id="lineBreakAtBeginningOfSignature"><div dir="ltr">Sent from my iPhone</div>⟧',
        'Hi ⟦<div class="protonmail_signature_block">Sent with Proton</div>⟧<div class="protonmail_quote">x</div>',
        '<p>Hi</p><blockquote type="cite">x</blockquote>⟦<div id="_rc_sig">-- <br>Ana</div>⟧',
        'Hi⟦<div id="composer_signature">Sent from my Galaxy</div>⟧',
    ],
)
def test_a_signature_in_html_is_found(wanted: str) -> None:
    html = wanted.replace("⟦", "").replace("⟧", "").encode()
    assert marked(html, in_html(html)) == wanted


@pytest.mark.parametrize(
    "html",
    [
        "",
        "<p>Hi</p>",
        '<div class="moz-signature">Ana</div>',  # nothing would be left
        f'<p>Hi</p><div class="{MARKER}">Ana</div>',
        '<p>Hi</p><blockquote type="cite">x<div class="moz-signature">Bo</div></blockquote>',
        '<p>Hi</p><div class="gmail_quote">x<div class="gmail_signature">Bo</div></div>',
        '<p>Hi</p><div class="gmail_signature">Ana<blockquote type="cite">x</blockquote></div>',
        '<p>Hi</p><p>write "gmail_signature" here</p>',
        '<p>Hi</p><!-- <div class="moz-signature">Ana</div> -->',
        '<p class="signature">Hi</p>',
    ],
)
def test_what_only_looks_like_one_in_html_stays(html: str) -> None:
    assert in_html(html.encode()) == ()


@pytest.mark.parametrize(
    ("mail", "text", "html"),
    [
        ("44-gmail-web-reply-own-signature-above", 1, 2),
        ("45-gmail-web-reply-own-signature-below", 1, 2),
        ("32-outlook-web-reply-german-own-signature", 0, 1),
        ("33-outlook-ios-reply", 0, 1),
        ("51-thunderbird-new-plain-own-signature", 1, 0),
        ("56-thunderbird-new-html-own-signature", 0, 1),
        ("58-k9-reply", 1, 1),
        ("66-roundcube-reply-own-signature-below", 1, 1),
        ("71-proton-new", 0, 1),
        ("73-samsung-new", 0, 1),
    ],
)
def test_what_clients_write_is_taken_out_and_ours_stands_above_the_quote(mail: str, text: int, html: int) -> None:
    raw = (CORPUS / f"{mail}.eml").read_bytes()
    parts = {part.content_type: part for part in scan(raw).walk()}
    found = {}
    for kind, look in (("text/plain", in_text), ("text/html", in_html)):
        if kind in parts:
            octets = read(raw, parts[kind]).octets
            extents = look(octets)
            found[kind] = (extents,) if kind == "text/plain" and extents else extents or ()
    assert (len(found.get("text/plain", ())), len(found.get("text/html", ()))) == (text, html)
    done = inject(raw, ANA, strip_client_signature=True)
    assert done.placed
    for part in scan(done.raw).walk():
        if part.content_type == "text/html":
            octets = read(done.raw, part).octets
            assert octets.count(MARKER.encode()) == 1
            assert in_html(octets) == ()
            assert place_in_html(octets).has_block
    assert inject(done.raw, ANA, strip_client_signature=True).raw == done.raw
