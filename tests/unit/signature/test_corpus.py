"""Messages in the shapes that real clients write, each with the place where its signature belongs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from gateway.mime.compose import Image
from gateway.mime.structure import scan
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import ALREADY_THERE, Injected, inject
from tests.support.message_laws import check_splice, leaves, no_new_defects, parse, stored

CORPUS = Path(__file__).parents[2] / "data" / "signature"
MAILS = sorted(CORPUS.glob("*.eml"))

PICTURE = Image("logo.1@signature.example", "image/png", "image1.png", b"\x89PNG\r\n\x1a\n" + bytes(100))
SIGNATURES = {
    "plain-letters": RenderedSignature("<p><b>Ana Lima</b><br>Support</p>", "Ana Lima\nSupport"),
    "foreign-letters": RenderedSignature("<p>Ana Lima – Ελλάδα</p>", "Ana Lima – Ελλάδα\nServiço"),
    "picture": RenderedSignature(
        f'<p>Ana Lima<br><img src="cid:{PICTURE.content_id}" alt="Example"></p>', "Ana Lima", (PICTURE,)
    ),
}


def expected(mail: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(mail.with_suffix(".expect.json").read_text())
    return found


@pytest.mark.parametrize("name", SIGNATURES)
@pytest.mark.parametrize("mail", MAILS, ids=lambda mail: mail.stem)
def test_the_signature_stands_where_the_client_s_shape_wants_it(mail: Path, name: str) -> None:
    raw, signature, wanted = mail.read_bytes(), SIGNATURES[name], expected(mail)
    injected = inject(raw, signature)
    assert (injected.placed, injected.reason) == (wanted["placed"], wanted["reason"])
    no_new_defects(raw, injected.raw)
    two_parsers_agree(injected.raw)
    if not wanted["placed"]:
        assert injected.raw == raw
        return
    assert inject(injected.raw, signature) == Injected(injected.raw, True, ALREADY_THERE)
    if mail.stem == "16-attachments-only":
        assert [stored(leaf) for leaf in leaves(parse(raw))] == [
            stored(leaf) for leaf in leaves(parse(injected.raw))[-1:]
        ]
        return
    places = check_splice(raw, injected.raw, signature)
    assert set(places) == {f"text/{kind}" for kind in ("plain", "html") if {"plain": "text"}.get(kind, kind) in wanted}
    for kind, key in (("text/plain", "text"), ("text/html", "html")):
        if key in wanted:
            above, below = places[kind].above.rstrip(), places[kind].below.lstrip()
            assert above.endswith(wanted[key]["after"])
            assert below.startswith(wanted[key]["before"]) if wanted[key]["before"] else not below.strip()


@pytest.mark.parametrize("mail", MAILS, ids=lambda mail: mail.stem)
def test_line_feeds_alone_make_no_difference(mail: Path) -> None:
    raw, signature = mail.read_bytes(), SIGNATURES["plain-letters"]
    with_crlf = inject(raw, signature)
    with_lf = inject(raw.replace(b"\r\n", b"\n"), signature)
    assert with_lf.placed == with_crlf.placed
    assert b"\r" not in with_lf.raw
    if b"base64" not in raw:  # the line ends within base64 are the client's
        assert with_lf.raw.replace(b"=_", b"").count(b"\n") == with_crlf.raw.count(b"\r\n")


@pytest.mark.parametrize("mail", MAILS, ids=lambda mail: mail.stem)
def test_the_scanner_sees_the_same_leaves_as_the_standard_library(mail: Path) -> None:
    two_parsers_agree(mail.read_bytes())


def two_parsers_agree(raw: bytes) -> None:
    ours = [part.content_type for part in scan(raw).walk() if not part.is_multipart]
    assert ours == [leaf.get_content_type() for leaf in leaves(parse(raw))]
