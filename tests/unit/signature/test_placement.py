"""Where the block goes: `|` marks the place."""

from __future__ import annotations

import pytest

from gateway.outbound.signature.placement import place_in_html, place_in_text


def check_text(marked: str) -> None:
    text = marked.replace("|", "", 1)
    for eol in ("\n", "\r\n"):
        wanted = marked.replace("\n", eol)
        octets = text.replace("\n", eol).encode()
        at = place_in_text(octets).at
        assert (octets[:at] + b"|" + octets[at:]).decode() == wanted


def check_html(marked: str) -> None:
    octets = marked.replace("|", "", 1).encode()
    at = place_in_html(octets).at
    assert (octets[:at] + b"|" + octets[at:]).decode() == marked


@pytest.mark.parametrize(
    "marked",
    [
        "|",
        "|\n\n",
        "Hello|",
        "Hello\n|",
        "Hello\n|\n\n",
        "Hello\n\n|On 1 Jan 2026, Bo wrote:\n> hi\n",
        "Hello\n\n|On 1 Jan 2026, Bo\n<bo@x.example> wrote:\n\n> hi\n\n> there\n\n",
        "Hello\n\n|Am 1.1.2026 schrieb Bo:\n> hi\n>> and\n",
        "Hello\n\n|2026年1月1日 Bo <bo@x.example>：\n> hi\n",
        "Hello, as follows:\n\n|> hi\n",  # the agent's own words: no date, no address
        "Hello.\n\n|> hi\n",
        "|> hi\n",
        "Hello\n\n|On 1 Jan 2026, Bo wrote:\n> hi\n\n-- \nAna\n",
        "On 1 Jan 2026, Bo wrote:\n> hi\n\n-- \nAna\n|",
        "On 1 Jan 2026, Bo wrote:\n> hi\n\nan answer\n|",
        "> hi\nan answer\n> and\nanother\n> rest\n|",
        "Hello\n\n|-----Original Message-----\nFrom: bo@x.example\nSent: 1 Jan\n\nhi\n> older\nolder still\n",
        "Hello\n\n|-----Ursprüngliche Nachricht-----\nVon: Bo\n\nhi\n",
        "Hello\n\n|---------- Forwarded message ---------\nFrom: Bo\n\nhi\n",
        "Hello\n\n|----- Forwarded message from Bo -----\n\nDate: 1 Jan\n\nhi\n\n----- End forwarded message -----\n",
        "Hello\n\n|________________________________\nDe: Bo\n\nhi\n",
        "Hello\n\n|From: Bo <bo@x.example>\nSent: Monday, 23 November\nTo: Ana\nSubject: x\n\nhi\n",
        "Hello\n\n|*From:* Bo <bo@x.example>\n*Sent:* Monday, 23 November\n*To:* Ana\n\nhi\n",
        "Hello\n\n|------- Original Message -------\nOn 1 Jan 2026, Bo wrote:\n\n> hi\n",
        "Begin\n\n|Begin forwarded message:\n\n> From: Bo\n> Date: today\n> hi\n",
        "Begin\n|----- Forwarded Message ----- From: Bo To: Ana\nhi\n",
        "Begin\n----- Details -----: none\nmore\n|",
        "Hello\n----- Details -----\nnothing of that kind\n|",
        "Hello\n________________________________\nmy own line\n|",
        "From: here to there\nit is far\n|",
        "Name: Bo\nMail: bo@x.example\nPhone: 12\n|",
        "> hi\n\n-----Original Message-----\nFrom: x\n|",
    ],
)
def test_the_place_in_text(marked: str) -> None:
    check_text(marked)


QUOTE = "<blockquote>hi</blockquote>"


@pytest.mark.parametrize(
    "marked",
    [
        "|",
        "<p>Hello</p>|",
        "<html><body><p>Hello</p>|</body></html>\n",
        "<html><p>Hello</p>|</html>",
        "<BODY><P>Hello</P>|</BODY>",
        f'<p>Hello</p>|<div class="gmail_quote">{QUOTE}</div>',
        f'<p>Hello</p>|<div class="x gmail_quote_container y">{QUOTE}</div><br></body>'.replace("</body>", ""),
        f"<p>Hello</p>|<div id=yahoo_quoted_12>{QUOTE}</div>",
        '<p>Hello</p>|<DIV ID="divRplyFwdMsg"><b>From:</b> Bo</DIV><p>hi</p></body>',
        '<p>Hello</p>|<hr tabindex="-1"><div id="divRplyFwdMsg"><b>From:</b> Bo</div><p>hi</p>',
        '<p>Hello</p>|<div id="appendonsend"></div><hr><div id="divRplyFwdMsg">Bo</div>',
        f'<p>Hello</p>|<blockquote type="cite">{QUOTE}hi</blockquote><br>',
        "<p>Hello</p>|<blockquote type=cite>never closed",
        '<p>Hello</p>|<p>On 1 Jan, Bo wrote:</p><blockquote type="cite">hi</blockquote>',
        'Hello<br><br>|On 1 Jan, Bo wrote:<br><blockquote type="cite">hi</blockquote>',
        "<div>Hello</div>|On 1 Jan, Bo wrote:<blockquote type='cite'>hi</blockquote>",
        "<div>Hello<br>|On 1 Jan<br>Bo wrote:</div><blockquote type=cite>hi</blockquote>",
        "<p>Hello, for you:</p>|<blockquote type=cite>hi</blockquote>",
        "<p>Hello</p>|<div><div style='border:none;border-top:solid #E1E1E1 1.0pt;padding:3.0pt'><b>Von:</b> Bo</div>",
        "<p>Hello</p>|<div style='border:none;border-top:solid #B5C4DF 1.0pt;padding:3.0pt'><b><i>Von:</i></b></div>",
        "<p>Hello</p><div style='border:none;border-top:solid red 1.0pt;padding:3.0pt'>my own line</div>|",
        '<p>Hello</p>|<div class="moz-forward-container">-------- Forwarded Message --------<p>hi</div>',
        "<p>Hello</p>|<div>-------- Original message --------</div><div>From: Bo</div>hi",
        "Hello<br>|-----Original Message-----<br>From: Bo<br>hi",
        "<p>Hello</p><p>----- mine -----</p>|",
        f"<p>Hello</p>|<div class=protonmail_quote>Bo:{QUOTE}</div>",
        f"<p>Hello</p>{QUOTE}|",
        '<blockquote type="cite">hi</blockquote><p>below</p>|</body>',
        "<blockquote type=cite>hi</blockquote><p>between</p><blockquote type=cite>hi</blockquote>|",
        "<p>x</p>|<blockquote type=cite>hi</blockquote>&nbsp;<br><blockquote type=cite>hi</blockquote> \u00a0",
        '<p>x</p>|<blockquote type=cite>hi</blockquote><div class="moz-signature">Ana</div>',
        "<div class=gmail_quote><div>1 Jan Bo:</div><blockquote class=gmail_quote>hi</blockquote>in</div>|",
        "<p>Hello</p><!-- <div class=gmail_quote> -->|",
        "<p>Hello</p><style>.yahoo_quoted {}</style>|",
        "<p>the words gmail_quote and divRplyFwdMsg</p>|",
        '<p title="gmail_quote">Hello</p>|',
        '<p class="gmail_quote>Hello</p>'.replace("<p", "|<p"),
        "<p>Hello</p>|</body><!-- </body> -->",
    ],
)
def test_the_place_in_html(marked: str) -> None:
    check_html(marked)


@pytest.mark.parametrize(
    ("html", "has_block"),
    [
        ('<p>Hello</p><div class="mail-gateway-signature">Ana</div>', True),
        ('<p>Hello</p><div class="x_mail-gateway-signature">Ana</div><br>', True),
        ('<p>Hello</p><div class="gmail_quote"><div class="mail-gateway-signature">Ana</div></div>', False),
        ('<blockquote type=cite><div class="mail-gateway-signature">Ana</div></blockquote>below', False),
        ('<blockquote type=cite>hi</blockquote>below<div class="mail-gateway-signature">Ana</div>', True),
        ("<p>about mail-gateway-signature</p>", False),
        ('<!-- <div class="mail-gateway-signature"> -->', False),
        ('<div class="mail-gateway-signature"><blockquote type=cite>Ana', True),
    ],
)
def test_the_marker_counts_outside_the_quote_only(html: str, has_block: bool) -> None:
    assert place_in_html(html.encode()).has_block is has_block


def test_our_own_block_is_no_answer_below_a_quote() -> None:
    quoted = b"<p>x</p><blockquote type=cite>hi</blockquote>"
    assert place_in_html(quoted + b'<div class="mail-gateway-signature">Ana</div>').at == len(b"<p>x</p>")
