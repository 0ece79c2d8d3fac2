"""Laws of the preview: whatever a stranger's mail holds, it is shown, quoted and harmless."""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from html.parser import HTMLParser

from hypothesis import example, given
from hypothesis import strategies as st

from gateway.mime.scan import Mailbox
from gateway.preview import sample
from gateway.preview.letter import read
from gateway.preview.page import page
from gateway.preview.sanitise import sanitise
from tests.property.mime_trees import messages

AUTHOR = Mailbox("Ana Lima", "support@example.com")
AT = datetime(2026, 11, 24, 9, tzinfo=UTC)
PIECES = (
    *("<script>", "</script>", "<style>", "</style>", "<body ", "onload=x", ">", "<", '"', "'", "<!--", "-->", "<svg>"),
    *("<img src=x onerror=y>", '<a href="javascript:x">', "<meta http-equiv=refresh>", "<iframe>", "<base href=x>"),
    *("<body style='x' onload=y>", '<body bgcolor="#fff" style="&quot;><script>">', "</body>", "<template>", "<math>"),
    *("<title>", "<noscript>", "<plaintext>", "<xmp>", "<p title='</p><script>'>", "&lt;script&gt;", "<![if x]>", "é"),
)
pieces = st.lists(st.sampled_from(PIECES) | st.text(max_size=5), max_size=12).map("".join)
ACTING = {"script", "iframe", "object", "embed", "form", "input", "base", "meta", "link", "svg", "math", "template"}


class Acts(HTMLParser):
    """What in a fragment could act, as a parser finds it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ACTING:
            self.found.append(tag)
        for name, value in attrs:
            scheme = (value or "").strip().lower().partition(":")[0]
            if name.startswith("on") or (name in ("href", "src") and scheme in ("javascript", "data", "file")):
                self.found.append(f"{tag} {name}")


def acts(html: str) -> list[str]:
    parser = Acts()
    parser.feed(html)
    parser.close()
    return parser.found


@given(pieces, st.booleans())
@example("<style></style><script>x</script>", True)
def test_what_is_sanitised_does_not_act(html: str, keep_style_sheets: bool) -> None:
    assert acts(sanitise(html, keep_style_sheets=keep_style_sheets)) == []


@given(pieces)
def test_what_is_sanitised_stays_as_it_is(html: str) -> None:
    once = sanitise(html, keep_style_sheets=False)
    assert sanitise(once, keep_style_sheets=False) == once


@given(messages() | st.binary(max_size=400))
def test_every_message_can_be_shown_and_answered(raw: bytes) -> None:
    letter = read(raw)
    assert page(letter).endswith("</html>\n")
    answer = sample.answer(AUTHOR, letter, at=AT, message_id="<x@gateway.example>")
    message = message_from_bytes(answer.raw, policy=policy.default)
    assert [part.get_content_type() for part in message.walk()][:2] == ["multipart/alternative", "text/plain"]
    assert not [defect for part in message.walk() for defect in part.defects]
    assert b"\n" not in answer.raw.replace(b"\r\n", b"")
    assert max(map(len, answer.raw.split(b"\r\n"))) <= 998


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp"))), max_size=6))
def test_every_line_of_the_mail_is_in_the_quote(lines: list[str]) -> None:
    head = b"From: a@example.net\r\nMIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    letter = read(head + "\r\n".join(lines).encode())
    answer = read(sample.answer(AUTHOR, letter, at=AT, message_id="<x@gateway.example>").raw)
    quoted = [line.lstrip("> ") for line in answer.text.split("\n") if line.startswith(">")]
    assert [line for line in quoted if line] == [
        line.rstrip().lstrip("> ") for line in lines if line.strip("> ").strip()
    ]
