"""Messages as hypothesis draws them: nested multiparts, every transfer encoding, many charsets, some damage."""

from __future__ import annotations

import base64
import binascii
from typing import Any

from hypothesis import strategies as st

QUOTES_TEXT = (
    "On Mon, 1 Jan 2026 at 10:00, Bob wrote:\n> hello\n> there\n",
    "> a quote\n\nan answer below\n",
    "-----Original Message-----\nFrom: b@example.net\nSent: 2026\nTo: a@example.com\n\nhello\n",
    "-- \nsent from a phone\n",
    "________________________________\nVon: b@example.net\n",
)
QUOTES_HTML = (
    '<div class="gmail_quote"><div class="gmail_attr">On 1 Jan Bob wrote:<br></div>'
    '<blockquote class="gmail_quote">hello</blockquote></div>',
    '<div class="moz-cite-prefix">Am 1.1.2026 schrieb Bob:<br></div><blockquote type="cite"><p>hi</p></blockquote>',
    '<div id="appendonsend"></div><hr><div id="divRplyFwdMsg"><b>From:</b> Bob</div><div>hi</div>',
    "<div style='border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0in'><p><b>From:</b> Bob</p></div>",
    '<div class="protonmail_quote">hi</div>',
    "<!-- <div class=gmail_quote> -->",
    "<style>.yahoo_quoted { color: red }</style>",
)

text_lines = st.lists(
    st.one_of(
        st.text(st.characters(codec="utf-8", exclude_categories=("Cc", "Cs", "Zl", "Zp")), max_size=90),
        st.sampled_from(
            [
                "",
                "Hello,",
                "Grüße ",
                "日本語のメール",
                "a = b",
                "> quoted",
                "--",
                "wrote:",
                "x" * 200,
                "y" * 998,
                ".",
                "Привет",
                "-- ",
            ]
        ),
    ),
    max_size=8,
)


@st.composite
def texts(draw: st.DrawFn) -> str:
    body = "\n".join(draw(text_lines))
    if draw(st.booleans()):
        body += "\n\n" + "\n".join(draw(st.lists(st.sampled_from(QUOTES_TEXT), max_size=2)))
    return body + draw(st.sampled_from(["", "\n", "\n\n"]))


@st.composite
def htmls(draw: st.DrawFn) -> str:
    inner = "".join(f"<p>{line}</p>" + draw(st.sampled_from(["", "\n"])) for line in draw(text_lines))
    inner += "".join(draw(st.lists(st.sampled_from(QUOTES_HTML), max_size=2)))
    if draw(st.booleans()):
        return f"<html><head></head><body>{inner}</body></html>" + draw(st.sampled_from(["", "\n"]))
    return inner


def _fits(text: str, codec: str) -> bool:
    try:
        return text.encode(codec).decode(codec) == text
    except UnicodeError:
        return False


CHARSETS = (
    *("us-ascii", "utf-8", "iso-8859-1", "windows-1252", "windows-1251", "windows-1250", "koi8-r"),
    *("iso-2022-jp", "gb18030", "utf-16", "shift_jis", "big5"),
)


@st.composite
def text_parts(draw: st.DrawFn, kind: str, eol: bytes) -> bytes:
    text = draw(texts() if kind == "plain" else htmls())
    charset = draw(st.sampled_from([one for one in CHARSETS if _fits(text, one)]))
    octets = text.replace("\n", eol.decode()).encode(charset)
    encodings = ["base64", "base64"] if charset == "utf-16" else ["base64", "quoted-printable"]
    if charset != "utf-16":
        encodings.append("7bit" if octets.isascii() else "8bit")
    encoding = draw(st.sampled_from(encodings))
    fields = [f"Content-Type: text/{kind}; charset={charset}"]
    if charset in ("utf-8", "us-ascii") and draw(st.booleans()):  # it does not say what it is
        fields = [f"Content-Type: text/{kind}"]
    if kind == "plain" and charset != "utf-16" and draw(st.booleans()):
        fields[0] += draw(st.sampled_from(["; format=flowed", "; format=flowed; delsp=yes"]))
    if encoding != "7bit" or draw(st.booleans()):
        fields.append(f"Content-Transfer-Encoding: {encoding}")
    if encoding == "base64":
        octets = base64.encodebytes(octets).replace(b"\n", eol)
    elif encoding == "quoted-printable":
        octets = binascii.b2a_qp(b"\r\n" + octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))[2:]
        octets = octets.replace(b"\r\n", eol)
    return eol.join(field.encode() for field in fields) + eol + eol + octets


@st.composite
def files(draw: st.DrawFn, eol: bytes) -> bytes:
    kind = draw(st.sampled_from(["application/pdf", "image/png", "text/plain", "text/calendar; method=REQUEST"]))
    fields = [f"Content-Type: {kind}", "Content-Transfer-Encoding: base64"]
    if kind != "text/calendar; method=REQUEST":
        fields.append('Content-Disposition: attachment; filename="a file"')
    content = base64.encodebytes(draw(st.binary(max_size=60))).replace(b"\n", eol)
    return eol.join(field.encode() for field in fields) + eol + eol + content


@st.composite
def forwarded(draw: st.DrawFn, eol: bytes) -> bytes:
    inner = draw(text_parts("plain", eol))
    return b"Content-Type: message/rfc822" + eol + eol + b"Subject: inner" + eol + inner


def multipart(draw: st.DrawFn, subtype: str, children: list[bytes], eol: bytes) -> bytes:
    boundary = f"b{draw(st.integers(0, 10**6))}_{len(children)}"
    while any(boundary.encode() in child for child in children):
        boundary += "x"
    line = b"--" + boundary.encode()
    quoted = draw(st.sampled_from([f'"{boundary}"', boundary]))
    header = f"Content-Type: multipart/{subtype};".encode() + draw(st.sampled_from([b"", eol + b"\t"]))
    body = draw(st.sampled_from([b"", b"This is a message with parts." + eol]))
    body += b"".join(line + draw(st.sampled_from([b"", b" "])) + eol + child + eol for child in children)
    body += draw(st.sampled_from([line + b"--" + eol, line + b"--", line + b"--" + eol + b"epilogue" + eol]))
    return header + b" boundary=" + quoted.encode() + eol + eol + body


def trees(eol: bytes) -> st.SearchStrategy[bytes]:
    leaf = st.one_of(text_parts("plain", eol), text_parts("html", eol), files(eol), forwarded(eol))

    def deeper(inner: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
        @st.composite
        def build(draw: st.DrawFn) -> bytes:
            subtype = draw(st.sampled_from(["alternative", "mixed", "related", "mixed", "x-unknown"]))
            if subtype == "alternative" and draw(st.booleans()):
                children = [draw(text_parts("plain", eol)), draw(text_parts("html", eol))]
            elif subtype == "mixed" and draw(st.booleans()):  # as Apple's clients write it
                kind = draw(st.sampled_from(["plain", "html"]))
                children = [draw(text_parts(kind, eol)), draw(files(eol)), draw(text_parts(kind, eol))]
            else:
                children = draw(st.lists(inner, min_size=1, max_size=3))
            return multipart(draw, subtype, children, eol)

        return build()

    return st.recursive(leaf, deeper, max_leaves=6)


@st.composite
def messages(draw: st.DrawFn) -> bytes:
    eol = draw(st.sampled_from([b"\r\n", b"\r\n", b"\n"]))
    fields = ["From: a@example.com", "To: b@example.net", "Subject: =?utf-8?q?caf=C3=A9?=", "X-Odd:no blank"]
    if draw(st.booleans()):
        fields.insert(draw(st.integers(0, 4)), "MIME-Version: 1.0")
    return eol.join(field.encode() for field in fields) + eol + draw(trees(eol))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A message whose line ends, or some octets, were changed on the way."""
    raw = draw(messages())
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(raw)))
        line_end = raw.find(b"\n", at)
        how = draw(st.sampled_from(["lost return", "return too many", "octet", "cut", "lost end", "lines joined"]))
        if how == "octet":
            raw = raw[:at] + draw(st.binary(min_size=1, max_size=1)) + raw[at + 1 :]
        elif how == "cut":
            raw = raw[:at]
        elif how == "lost end":
            raw = raw[: end + 1] if (end := raw.rfind(b"\n--")) > 0 else raw
        elif line_end > 0 and how == "return too many":
            raw = raw[:line_end] + b"\r" + raw[line_end:]
        elif line_end > 0:
            raw = raw[:line_end].removesuffix(b"\r") + raw[line_end + (how == "lines joined") :]
    return raw


PIECES: tuple[Any, ...] = (
    b"\r\n", b"\n", b"\r", b"--b", b"--b--", b"\r\n--b\r\n", b"\n--b\n", b"Content-Type: multipart/mixed; boundary=b",
    b"Content-Type: multipart/alternative;\r\n boundary=\"b\"", b"Content-Type: text/html; charset=utf-8",
    b"Content-Type: text/plain; charset=iso-2022-jp", b"Content-Type: text/plain; charset*0=u; charset*1=tf-8",
    b"Content-Transfer-Encoding: base64", b"Content-Transfer-Encoding: quoted-printable", b"MIME-Version: 1.0",
    b"Content-Type: text/plain; name*0*=\xff''%FF; name*1=\"", b"Subject: x", b"From x", b"=", b"=3D", b"= \r\n", b"==",
    b"<div class=gmail_quote>", b"<blockquote type=cite>", b"</blockquote>", b"</body>", b"<!--", b"<style>", b"> a",
    b"On 1 Jan, x wrote:", b"-----Original Message-----", b"From: a@b 1", b"-- ", b"\x1b$B", b"\xff", b"\0", b" ", b":",
    b'<div class="mail-gateway-signature">', b"Content-Type: multipart/related; boundary=b; start=\"<x>\"", b"<hr",
)  # fmt: skip
wreckage = st.lists(st.one_of(st.sampled_from(PIECES), st.binary(max_size=6)), max_size=30).map(b"".join)
