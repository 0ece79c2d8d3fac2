"""Whole messages by dice: every shape, charset, transfer encoding and line end that mail clients write."""

from __future__ import annotations

import base64
import binascii
import random
from typing import Final

from tests.property.mime_trees import CHARSETS, QUOTES_HTML, QUOTES_TEXT

_LINES: Final = (
    "", "Hello,", "Grüße ", "日本語のメール", "Привет", "a = b", "> quoted", "--", "-- ", "wrote:", "x" * 200,
    "y" * 998, ".", " indented", "From here", "<b>bold</b> & more", "=3D", "one two ", "支援", "\u00a0", "\t",
)  # fmt: skip
_TYPES: Final = ("application/pdf", "image/png", "text/plain", "text/calendar; method=REQUEST", "message/rfc822")


def message(dice: random.Random) -> bytes:
    eol = dice.choice((b"\r\n", b"\r\n", b"\r\n", b"\n"))
    fields = [b"From: a@example.com", b"To: b@example.net", b"Subject: =?utf-8?q?caf=C3=A9?=", b"X-Odd:no blank"]
    if dice.random() < 0.8:
        fields.insert(dice.randrange(5), b"MIME-Version: 1.0")
    return eol.join(fields) + eol + _part(dice, eol, 0)


def _part(dice: random.Random, eol: bytes, depth: int) -> bytes:
    if depth > 4 or dice.random() < 0.35:
        return _text(dice, dice.choice(("plain", "plain", "html")), eol) if dice.random() < 0.75 else _file(dice, eol)
    kind = dice.choice(("alternative", "alternative", "mixed", "related", "x-unknown", "digest"))
    if kind == "alternative" and dice.random() < 0.7:
        children = [_text(dice, "plain", eol), _text(dice, "html", eol)]
    elif kind == "mixed" and dice.random() < 0.3:
        text = dice.choice(("plain", "html"))
        children = [_text(dice, text, eol), _file(dice, eol), _text(dice, text, eol)]
    else:
        children = [_part(dice, eol, depth + 1) for _ in range(dice.randint(1, 3))]
    return _multipart(dice, kind, children, eol)


def _multipart(dice: random.Random, kind: str, children: list[bytes], eol: bytes) -> bytes:
    boundary = f"b{dice.randrange(10**6)}".encode()
    line = b"--" + boundary
    body = dice.choice((b"", b"This is a message with parts." + eol))
    body += b"".join(line + dice.choice((b"", b"", b" ")) + eol + child + eol for child in children)
    end = dice.choice((line + b"--" + eol, line + b"--", line + b"--" + eol + b"epilogue" + eol, b""))
    named = dice.choice((b'"%s"', b"%s")) % boundary
    return f"Content-Type: multipart/{kind};".encode() + eol + b"\tboundary=" + named + eol + eol + body + end


def _text(dice: random.Random, kind: str, eol: bytes) -> bytes:
    lines = [dice.choice(_LINES) for _ in range(dice.randrange(8))]
    quotes = QUOTES_TEXT if kind == "plain" else QUOTES_HTML
    if kind == "html":
        lines = [f"<p>{line}</p>" for line in lines]
    for _ in range(dice.choice((0, 0, 1, 1, 2))):
        lines.insert(dice.randint(0, len(lines)), dice.choice(quotes))
    text = "\n".join(lines) + dice.choice(("", "\n", "\n\n"))
    if kind == "html" and dice.random() < 0.5:
        text = f"<html><head></head><body>{text}</body></html>"
    name = dice.choice((*CHARSETS, "windows-1251", "koi8-r", "utf-7", "hz-gb-2312", "iso-2022-kr"))
    octets = text.encode(name, "ignore").replace("\n".encode(name), eol.decode().encode(name))
    if name == "utf-16":
        octets = text.replace("\n", eol.decode()).encode(name)
    encodings = (
        ["base64"] if name == "utf-16" else ["base64", "quoted-printable", "7bit" if octets.isascii() else "8bit"]
    )
    encoding = dice.choice(encodings)
    fields = f"Content-Type: text/{kind}; charset={name}" + dice.choice(
        ("", "", "; format=flowed", "; format=flowed; delsp=yes")
    )
    if encoding != "7bit" or dice.random() < 0.5:
        fields += f"{eol.decode()}Content-Transfer-Encoding: {encoding}"
    if encoding == "base64":
        octets = base64.encodebytes(octets).replace(b"\n", eol)
    elif encoding == "quoted-printable":
        octets = binascii.b2a_qp(b"\r\n" + octets.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n"))[2:].replace(
            b"\r\n", eol
        )
    head = b"" if dice.random() < 0.05 else fields.encode() + eol
    return head + eol + octets


def _file(dice: random.Random, eol: bytes) -> bytes:
    kind = dice.choice(_TYPES)
    if kind == "message/rfc822":
        return b"Content-Type: message/rfc822" + eol + eol + b"Subject: inner" + eol + _text(dice, "plain", eol)
    fields = [f"Content-Type: {kind}", "Content-Transfer-Encoding: base64"]
    if not kind.startswith("text/calendar"):
        fields.append(f'Content-Disposition: {dice.choice(("attachment", "inline"))}; filename="a file"')
    content = base64.encodebytes(dice.randbytes(dice.randrange(90))).replace(b"\n", eol)
    return eol.join(field.encode() for field in fields) + eol + eol + content


def hostile(size: int) -> dict[str, bytes]:
    """Messages of about `size` octets that are made to cost more than their size."""
    plain = b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n"
    html = plain.replace(b"plain", b"html")
    quoted = html.replace(b"\r\n\r\n", b"\r\nContent-Transfer-Encoding: quoted-printable\r\n\r\n")
    parts = b"MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n"
    nest = b"".join(b"Content-Type: multipart/mixed; boundary=b%d\r\n\r\n--b%d\r\n" % (n, n) for n in range(49))
    found = {f"{unit!r} in HTML": html + unit * (size // len(unit)) for unit in _HTML_UNITS}
    found |= {f"{unit!r} in text": plain + unit * (size // len(unit)) for unit in _TEXT_UNITS}
    found |= {f"{unit!r} quoted": quoted + unit * (size // len(unit)) for unit in (b"=", b"=41", b"=41=\r\n", b" ")}
    found |= {f"{unit!r} in header": unit * (size // len(unit)) + b"\r\nx" for unit in (b"X: y\r\n", b"X: y\r\n z\r\n")}
    found |= {
        f"{unit!r} as parameters": b"Content-Type: text/plain; "
        + unit * (min(size, 200_000) // len(unit))
        + b"\r\n\r\nx"
        for unit in (b";", b"a=b;", b"a ", b'a="\\"', b"a*1=x;", b"(")
    }
    return found | {
        "boundaries": parts + b"--b\r\n\r\nhi\r\n" * (size // 12),
        "all but boundaries": parts + b"--bx\r\n" * (size // 6),
        "all but boundaries, nested": nest + b"\r\nhi\r\n" + b"--bx\r\n" * (size // 6),
        "nested": nest + b"Content-Type: multipart/mixed; boundary=b1\r\n\r\n--b1\r\n" * (size // 56),
        "a boundary as long as the mail": parts.replace(b"=b", b"=" + b"b" * (min(size, 200_000) // 2))
        + b"--"
        + b"b" * size,
        "a blockquote in a blockquote": html
        + b"<blockquote type=cite>" * (size // 34)
        + b"</blockquote>" * (size // 34),
    }


_HTML_UNITS: Final = (
    b"<", b"<a", b"<div>", b"<blockquote type=cite>", b"<blockquote>", b"<blockquote type=cite>x</blockquote>y",
    b"gmail_quote ", b"<div class=gmail_quote>", b"<div class=gmail_quote>a:</div>", b"mail-gateway-signature ",
    b'<div class="mail-gateway-signature">', b'<div class="', b"<!--", b"<style", b"<style></script>", b"border:",
    b"<div style='border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt 0in'>", b"-", b"-----abc-----:", b"<hr>",
    b"<br>", b"&nbsp;", b"</body>", b'<div class="moz-signature">', b'<a class="x ', b"a:1<br>", b" ", b"<![if ",
    b'<div id="appendonsend"></div>', b'<div class="gmail_signature">-- <br></div>', b"<p>-- </p>",
)  # fmt: skip
_TEXT_UNITS: Final = (
    b"-- \r\n", b"-- \r\nAna Lima\r\n", b"> a\r\n", b"> a\r\nb\r\n", b"1:\r\n", b"\r\n", b" ",
    b"-----abc-----\r\n:\r\n>",
    b"-", b"_", b"____________________________\r\n", b"From: x\r\n", b"word ", b"a <b@c> 10:00 2026:\r\n\r\n",
    b"-----BEGIN P", b"From: 1\r\nTo: 2\r\n>\r\n",
)  # fmt: skip
