"""The laws of injecting, over drawn messages and over bytes that are no message."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gateway.mime.compose import Image
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import ALREADY_THERE, Injected, inject
from tests.property.mime_trees import damaged, messages, wreckage
from tests.support.message_laws import agreed_leaves, check_splice, leaves, no_new_defects, parse, stored
from tests.support.octet_laws import broken_law

PICTURE = Image("logo.7@signature.example", "image/png", "image1.png", b"\x89PNG\r\n\x1a\n" + bytes(80))
signatures = st.sampled_from(
    [
        RenderedSignature("<p>Ana Lima</p>", "Ana Lima"),
        RenderedSignature("<p>Ana Límá – 支援</p>", "Ana Límá – 支援\n> and\n From: x\n\nOn 1 Jan 2026 y wrote:"),
        RenderedSignature(
            "<blockquote type=cite>-----Original Message-----: x</blockquote>", "-----Original Message-----\nFrom: 1"
        ),
        RenderedSignature("", "Ana Lima & partners\n" + "long line " * 120),
        RenderedSignature("<p>" + "long " * 400 + "</p>", ""),
        RenderedSignature(f'<img src="cid:{PICTURE.content_id}" alt="Logo">', "Ana", (PICTURE,)),
    ]
)


@given(messages(), signatures)
def test_injecting_twice_is_injecting_once(raw: bytes, signature: RenderedSignature) -> None:
    once = inject(raw, signature)
    if once.placed:
        assert inject(once.raw, signature) == Injected(once.raw, True, ALREADY_THERE)
    else:
        assert once.raw == raw
        assert once.reason


@given(messages(), signatures)
def test_taking_the_block_out_again_gives_the_message_back(raw: bytes, signature: RenderedSignature) -> None:
    injected = inject(raw, signature)
    no_new_defects(raw, injected.raw)
    if not injected.placed:
        return
    old, new = leaves(parse(raw)), leaves(parse(injected.raw))
    texts = [leaf for leaf in old if leaf.get_content_maintype() == "text" and not leaf.get_filename()]
    if not texts:  # only files: a text part came in front
        assert [stored(leaf) for leaf in new[-len(old) :]] == [stored(leaf) for leaf in old]
    else:
        assert check_splice(raw, injected.raw, signature)


@given(messages(), signatures)
def test_a_seven_bit_message_stays_one(raw: bytes, signature: RenderedSignature) -> None:
    if raw.isascii():
        assert inject(raw, signature).raw.isascii()


@given(messages(), signatures)
def test_no_line_grows_beyond_what_smtp_takes(raw: bytes, signature: RenderedSignature) -> None:
    def longest(message: bytes) -> int:
        return max(map(len, message.split(b"\n")))

    assert longest(inject(raw, signature).raw) <= max(999, longest(raw))


@given(st.one_of(st.binary(), wreckage, wreckage.map(lambda rest: b"MIME-Version: 1.0\r\n" + rest)), signatures)
def test_any_bytes_are_answered_and_never_raised_about(raw: bytes, signature: RenderedSignature) -> None:
    injected = inject(raw, signature)
    assert injected.raw == raw or injected.placed
    if injected.placed:
        assert inject(injected.raw, signature).raw == injected.raw


@given(st.one_of(messages(), damaged()), signatures, st.booleans())
def test_damaged_mail_keeps_the_laws(raw: bytes, signature: RenderedSignature, is_stripped: bool) -> None:
    injected = inject(raw, signature, strip_client_signature=is_stripped)
    assert broken_law(raw, injected, signature, is_stripped=is_stripped) == ""


@given(messages(), signatures)
def test_two_parsers_agree_on_what_came_out(raw: bytes, signature: RenderedSignature) -> None:
    assert agreed_leaves(inject(raw, signature).raw)
