"""`render signature | auto-reply`: text, page, message; what is said about it, and every wrong way to ask."""

from __future__ import annotations

import json
from email import message_from_bytes, policy
from email.message import EmailMessage
from html import unescape
from pathlib import Path

import pytest

from tests.support.preview import AGENTS, AUTO_REPLY, SIGNATURE, Preview, letter

HOSTILE = "\x1b[2J\x1b]0;owned\x07"


@pytest.fixture
def render(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Preview:
    monkeypatch.delenv("MAIL_GATEWAY_CONFIG", raising=False)
    return Preview(tmp_path, capsys)


def save(render: Preview, raw: bytes, name: str = "question.eml") -> str:
    path = render.home / name
    path.write_bytes(raw)
    return str(path)


def parsed(raw: bytes) -> EmailMessage:
    message = message_from_bytes(raw, _class=EmailMessage, policy=policy.default)
    assert not [defect for part in message.walk() for defect in part.defects]
    return message


def content(message: EmailMessage, subtype: str) -> str:
    part = message.get_body((subtype,))
    assert part is not None
    return str(part.get_content())


# --- as text ---------------------------------------------------------------------------------------------------------


def test_a_new_mail_is_shown_with_the_lines_of_the_signature_marked(render: Preview) -> None:
    done = render("signature", "support")
    assert done.exit_code == 0
    lines = done.out.splitlines()
    assert lines[:3] == [
        "From: Example Support <support@example.com>",
        "To: Sample Customer <customer@example.com>",
        "Subject: A sample mail",
    ]
    assert [line for line in lines if line.startswith("+")] == [
        "+ --",
        "+ Ana Lima, Engineer",
        "+ Example Support <support@example.com>",
        "+ +351 21 000 0000",
    ]
    assert "  here stands what the agent writes." in lines
    assert lines[-1] == "[pictures in the HTML: 1]"
    assert "support: written by Ana Lima <ana@example.com>, the first of 2 who may; --agent names another" in done.err


def test_nothing_is_asked_or_kept(render: Preview) -> None:
    assert render("signature", "support").exit_code == 0
    assert sorted(path.name for path in render.home.iterdir()) == ["gateway.toml", "rules.toml", "signatures"]


@pytest.mark.parametrize("name", ["support", "support@example.com", "Help@Example.com"])
def test_a_touchpoint_has_three_names(render: Preview, name: str) -> None:
    assert "+ Ana Lima, Engineer" in render("signature", name).out


def test_another_agent_can_write(render: Preview) -> None:
    done = render("signature", "support", "--agent", "BEA@example.com")
    assert "+ Bea Santos\n" in done.out
    assert "the first of" not in done.err


def test_an_answer_quotes_the_mail_below_the_signature(render: Preview) -> None:
    done = render("signature", "support", "--reply-to", save(render, letter()))
    assert "To: Carla Gomes <carla@customer.example>\nSubject: Re: Password\n" in done.out
    lines = done.out.splitlines()
    last = max(number for number, line in enumerate(lines) if line.startswith("+"))
    assert [line for line in lines[last + 1 :] if line][:2] == [
        "  On 2026-11-23 09:12, Carla Gomes wrote:",
        "  > How do I reset my password?",
    ]
    assert not [line for line in lines if line.startswith("+") and ">" in line and "support@" not in line]


def test_the_customer_of_the_variables_is_the_author_of_the_mail(render: Preview) -> None:
    render.write({"active": True, "text": "For {{ customer.name | default('you') }} <{{ customer.address }}>"})
    assert "+ For Sample Customer <customer@example.com>" in render("signature", "support").out
    asked = save(render, letter())
    assert "+ For Carla Gomes <carla@customer.example>" in render("signature", "support", "--reply-to", asked).out
    nameless = save(render, letter(sender="carla@customer.example"))
    assert "+ For you <carla@customer.example>" in render("signature", "support", "--reply-to", nameless).out
    elsewhere = save(render, letter("Reply-To: Desk <desk@customer.example>"))
    assert "+ For Desk <desk@customer.example>" in render("signature", "support", "--reply-to", elsewhere).out


def test_a_mail_that_is_an_answer_keeps_its_subject(render: Preview) -> None:
    again = save(render, letter().replace(b"Subject: Password", b"Subject: AW: Password"))
    assert "Subject: AW: Password\n" in render("signature", "support", "--reply-to", again).out


def test_a_signature_that_is_not_active_is_shown_and_that_is_said(render: Preview) -> None:
    render.write(SIGNATURE | {"active": False})
    done = render("signature", "support")
    assert done.exit_code == 0
    assert "+ Ana Lima, Engineer" in done.out
    assert "the signature is not active" in done.err
    render.write()
    assert "not active" not in render("signature", "support").err


def test_what_is_on_the_disk_counts_whatever_a_daemon_has_loaded(render: Preview) -> None:
    (render.home / "signatures" / "support.txt").write_text("edited a moment ago\n")
    assert "+ edited a moment ago\n" in render("signature", "support").out


def test_a_mail_cannot_drive_the_terminal(render: Preview) -> None:
    hostile = letter(body=f"Hello {HOSTILE}\r\n".encode()).replace(b"Password", f"Pass{HOSTILE}".encode())
    hostile = hostile.replace(b"Carla Gomes", f'"Carla{HOSTILE}"'.encode())
    for command in ("signature", "auto-reply"):
        done = render(command, "support", "--reply-to", save(render, hostile))
        assert done.exit_code == 0
        assert "\x1b" not in done.out + done.err
        assert "\x07" not in done.out + done.err
        assert "Pass" in done.out


def test_programs_get_one_array(render: Preview) -> None:
    done = render("signature", "support", "--json")
    assert done.err == ""
    (found,) = json.loads(done.out)
    assert (found["touchpoint"], found["agent"], found["active"]) == ("support", "ana@example.com", True)
    assert (found["placed"], found["reason"], found["output"]) == (True, "", None)
    assert found["to"] == ["Sample Customer <customer@example.com>"]
    assert "-- \nAna Lima, Engineer\n" in found["text"]
    assert 0 < found["adds"] < found["size"]
    assert isinstance(found["remarks"], list)
    done = render("auto-reply", "support", "--json", "--output", str(render.home / "x.eml"))
    (found,) = json.loads(done.out)
    assert (found["answered"], found["output"]) == (True, str(render.home / "x.eml"))


# --- as a message ----------------------------------------------------------------------------------------------------


def test_the_message_is_whole(render: Preview) -> None:
    raw = render.output("new.eml", "signature", "support")
    message = parsed(raw)
    assert b"\n" not in raw.replace(b"\r\n", b"")
    assert message["From"] == "Example Support <support@example.com>"
    assert message["Message-ID"] == "<preview@gateway.example>"
    assert [part.get_content_type() for part in message.walk()] == [
        "multipart/alternative", "text/plain", "multipart/related", "text/html", "image/png",
    ]  # fmt: skip
    image = list(message.walk())[-1]
    assert f'src="cid:{image["Content-ID"].strip("<>")}"' in content(message, "html")
    assert image.get_content() == (render.home / "signatures" / "logo.png").read_bytes()
    assert "Ana Lima, Engineer" in content(message, "plain")


def test_an_answer_belongs_to_its_thread(render: Preview) -> None:
    message = parsed(render.output("re.eml", "signature", "support", "--reply-to", save(render, letter())))
    assert message["In-Reply-To"] == message["References"] == "<question@customer.example>"
    html = content(message, "html")
    assert html.index("Ana Lima") < html.index("On 2026-11-23 09:12") < html.index("How do I reset my password?")


@pytest.mark.parametrize(
    ("charset", "words"),
    [
        pytest.param("iso-2022-jp", "パスワードを忘れました", id="iso-2022-jp"),
        pytest.param("gb18030", "我忘了密码", id="gb18030"),
        pytest.param("windows-1252", "J’ai oublié", id="windows-1252"),
        pytest.param("koi8-r", "Забыл пароль", id="koi8-r"),
        pytest.param("utf-8", "Ξέχασα 🔑", id="utf-8"),
    ],
)
def test_an_answer_is_written_in_the_charset_of_the_mail(render: Preview, charset: str, words: str) -> None:
    raw = letter(
        "MIME-Version: 1.0", f"Content-Type: text/plain; charset={charset}", "Content-Transfer-Encoding: 8bit",
        body=words.encode(charset) + b"\r\n",
    )  # fmt: skip
    message = parsed(render.output("re.eml", "signature", "support", "--reply-to", save(render, raw)))
    for subtype in ("plain", "html"):
        part = message.get_body((subtype,))
        assert part is not None
        assert part.get_content_charset() == charset
        assert words in content(message, subtype)
        assert "Ana Lima" in content(message, subtype)


def test_a_signature_with_letters_that_the_charset_lacks_is_still_whole(render: Preview) -> None:
    render.write({"active": True, "text": "Zoë"})
    raw = letter(
        "MIME-Version: 1.0", "Content-Type: text/plain; charset=koi8-r", "Content-Transfer-Encoding: 8bit",
        body="Забыл пароль\r\n".encode("koi8-r"),
    )  # fmt: skip
    message = parsed(render.output("re.eml", "signature", "support", "--reply-to", save(render, raw)))
    for subtype in ("plain", "html"):
        assert "Zoë" in unescape(content(message, subtype))
        assert "Забыл пароль" in content(message, subtype)


def test_a_file_that_is_there_is_written_anew(render: Preview) -> None:
    (render.home / "new.eml").write_text("old")
    assert b"old" not in render.output("new.eml", "signature", "support")


# --- as a page -------------------------------------------------------------------------------------------------------

EVIL = b"""<html><head><meta http-equiv="refresh" content="0; url=https://evil.example/"><base href="https://evil.example/">
<script>alert(1)</script></head><body onload="alert(2)" bgcolor="#ffeeaa"><p style="color: red">What <b>now</b>?</p>
<img src="https://evil.example/pixel.gif"><img src=x onerror="alert(3)"><a href="javascript:alert(4)">press</a>
<form action="https://evil.example/"><input name=password></form><iframe src="https://evil.example/"></iframe>
<svg><script>alert(5)</script></svg><style>@import "https://evil.example/x.css";</style></body></html>
"""


def test_a_page_needs_nothing_but_itself(render: Preview) -> None:
    page = render.output("new.html", "signature", "support").decode()
    assert "cid:" not in page
    assert "file:" not in page
    assert page.count("data:image/png;base64,") == 1
    assert "default-src 'none'; style-src 'unsafe-inline'; img-src data:" in page
    assert "<title>A sample mail</title>" in page
    assert "Ana Lima" in page
    assert "img-src data: https: http:" in render.output("new.htm", "signature", "support", "--remote").decode()


@pytest.mark.parametrize("command", ["signature", "auto-reply"])
def test_a_stranger_s_mail_does_nothing_in_a_page(render: Preview, command: str) -> None:
    html = letter("MIME-Version: 1.0", "Content-Type: text/html; charset=us-ascii", body=EVIL)
    html = html.replace(b"Subject: Password", b"Subject: </title><script>alert(6)</script>")
    asked = save(render, html)
    page = render.output("re.html", command, "support", "--reply-to", asked).decode().lower()
    mail = render.output("re.eml", command, "support", "--reply-to", asked).decode().lower()
    for written in (page, mail):
        for sign in ("<script", "onload", "onerror", "javascript:", "<iframe", "<form", "<base", 'http-equiv="refresh'):
            assert sign not in written.replace("subject: re: </title><script>", "").replace(
                "subject: auto: </title><script>", ""
            )
    if command == "signature":
        assert "color: red" in page
        assert "what <b>now</b>?" in page


def test_the_pictures_of_the_mail_are_in_its_quote(render: Preview) -> None:
    logo = (render.home / "signatures" / "logo.png").read_bytes()
    message = EmailMessage(policy=policy.SMTP)
    message["From"], message["Subject"] = "carla@customer.example", "A picture"
    message.set_content("see HTML")
    message.add_alternative('<p>This:</p><img src="cid:shot@customer"><img src="cid:gone@customer">', subtype="html")
    message.get_payload()[1].add_related(logo + b"\0", "image", "png", cid="<shot@customer>")  # type: ignore[index, union-attr]
    asked = save(render, message.as_bytes())
    answer = parsed(render.output("re.eml", "signature", "support", "--reply-to", asked))
    images = [part.get_content() for part in answer.walk() if part.get_content_type() == "image/png"]
    assert sorted(images, key=len) == [logo, logo + b"\0"]
    page = render.output("re.html", "signature", "support", "--reply-to", asked).decode()
    assert page.count("data:image/png;base64,") == 2
    assert page.count("cid:") == 1  # the one that the mail did not bring


# --- automatic replies -----------------------------------------------------------------------------------------------


def test_an_automatic_reply_is_shown(render: Preview) -> None:
    done = render("auto-reply", "support")
    assert (done.exit_code, done.err) == (0, "")
    assert "To: Sample Customer <customer@example.com>\nSubject: Auto: A sample mail\n" in done.out
    assert "Dear Sample Customer,\n\nyour mail is here." in done.out


def test_an_automatic_reply_goes_where_the_rules_say(render: Preview) -> None:
    asked = save(render, b"Return-Path: <carla+home@customer.example>\r\n" + letter())
    done = render("auto-reply", "support", "--reply-to", asked)
    assert done.err == ""
    assert "To: carla+home@customer.example\nSubject: Auto: Password\n" in done.out
    message = parsed(render.output("re.eml", "auto-reply", "support", "--reply-to", asked))
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["In-Reply-To"] == "<question@customer.example>"


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        pytest.param(["Auto-Submitted: auto-replied"], "Auto-Submitted: auto-replied", id="auto-submitted"),
        pytest.param(["Precedence: bulk"], "Precedence: bulk", id="bulk"),
        pytest.param([], "its return path", id="no-return-path"),
    ],
)
def test_a_mail_that_gets_none_is_told_and_the_reply_shown(render: Preview, fields: list[str], why: str) -> None:
    path = b"Return-Path: <carla@customer.example>\r\n" if fields else b""
    done = render("auto-reply", "support", "--reply-to", save(render, path + letter(*fields)))
    assert done.exit_code == 0
    assert "this mail would get no automatic reply: " in done.err
    assert why in done.err
    assert "Dear Carla Gomes," in done.out


def test_an_automatic_reply_that_is_not_active_is_judged_as_if_it_were(render: Preview) -> None:
    render.write(auto_reply=AUTO_REPLY | {"active": False}, active=False)
    asked = save(render, b"Return-Path: <carla@customer.example>\r\n" + letter())
    done = render("auto-reply", "support", "--reply-to", asked)
    assert "Dear Carla Gomes," in done.out
    assert "the automatic reply of support is not active" in done.err
    assert "would get no" not in done.err


# --- wrong ways ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["signature", "suport"], 2, 'unknown touchpoint "suport"; did you mean "support"?'),
        (["signature", "support@exmple.com"], 2, 'did you mean "support@example.com"?'),
        (["signature", "zebra"], 2, 'unknown touchpoint "zebra"; there is "reports" and "support"'),
        (["signature", "reports"], 1, "touchpoint reports only receives, so that nobody writes as it"),
        (["signature", "support", "--agent", "anna@example.com"], 2, 'did you mean "ana@example.com"?'),
        (
            ["signature", "support", "--agent", "caro@example.com"],
            2,
            "caro@example.com may not write as support; who may: ana@example.com, bea@example.com",
        ),
        (["signature", "support", "--agent", "dora@example.com"], 2, "dora@example.com is not active"),
        (["auto-reply", "reports"], 1, "touchpoint reports has no automatic reply; add [touchpoint.auto_reply]"),
        (["signature", "support", "--output", "x.pdf"], 2, "x.pdf: a file can be .html, .eml or .png"),
        (["signature", "support", "--output", "x"], 2, "x: a file can be .html, .eml or .png"),
        (["signature", "support", "--dark"], 2, "--dark is for a picture: add --output FILE.png"),
        (["auto-reply", "support", "--narrow", "--output", "x.eml"], 2, "--narrow is for a picture"),
        (["signature", "support", "--remote"], 2, "--remote is for a page or a picture"),
        (["signature", "support", "--output", "/nowhere/x.html"], 1, "/nowhere/x.html: No such file or directory"),
        (["signature", "support", "--reply-to", "/nowhere/x.eml"], 1, "/nowhere/x.eml: No such file or directory"),
        (["auto-reply", "support", "--reply-to", "/"], 1, "/: Is a directory"),
        (["signature", "support", "--reply-to", "/dev/null"], 1, "/dev/null is no message: it has no From"),
    ],
)
def test_what_cannot_be_done_is_one_clear_line(render: Preview, words: list[str], exit_code: int, message: str) -> None:
    done = render(*words)
    assert (done.exit_code, done.out) == (exit_code, "")
    assert message in done.err
    assert done.err.startswith("mail-gateway: ")
    assert done.err.count("\n") == 1


def test_a_touchpoint_without_a_signature_says_what_to_add(render: Preview) -> None:
    render.write(None)
    done = render("signature", "support")
    assert (done.exit_code, done.out) == (1, "")
    assert done.err == "mail-gateway: touchpoint support has no signature; add [touchpoint.signature] to rules.toml\n"


def test_a_touchpoint_that_nobody_may_write_as_says_so(render: Preview) -> None:
    render.write(agents=AGENTS[2:])
    done = render("signature", "support")
    assert (done.exit_code, done.out) == (1, "")
    assert "nobody may write as support" in done.err


def test_a_template_that_cannot_be_filled_names_its_line(render: Preview) -> None:
    render.write({"active": True, "text": "Hello\n{{ 1 // (subject | length - 13) }}"})
    done = render("signature", "support")
    assert (done.exit_code, done.out) == (1, "")
    assert done.err.startswith("mail-gateway: the signature of support: line 2: ZeroDivisionError")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize("command", ["signature", "auto-reply"])
def test_the_lint_names_file_and_line_and_an_error_is_1(render: Preview, command: str) -> None:
    (render.home / "signatures" / "bad.html").write_text(
        '<p>Ana</p>\n<img src="http://x.example/y.png" width=1 height=1>'
    )
    bad = {"active": True, "html": "file:signatures/bad.html", "text": "Ana"}
    render.write(signature=bad, auto_reply={**bad, "subject": "Auto"})
    done = render(command, "support")
    place = f"{render.home}/signatures/bad.html:2"
    assert done.exit_code == 1
    assert f"{place}: warning: the picture 'http://x.example/y.png' has no alt" in done.err
    assert f"{place}: error: the picture 'http://x.example/y.png' comes over http" in done.err
    (found,) = json.loads(render(command, "support", "--json").out)
    assert {(one["line"], one["severity"]) for one in found["remarks"]} == {(2, "warning"), (2, "error")}


def test_what_stands_in_the_rules_themselves_has_remarks_without_a_line(render: Preview) -> None:
    render.write(signature={"active": True, "html": "<table><tr><td>Ana</td></tr></table>"})
    done = render("signature", "support")
    assert done.exit_code == 0
    assert f"{render.home}/rules.toml: warning: <table> has no width" in done.err


def test_a_configuration_that_is_wrong_tells_all_its_problems(render: Preview) -> None:
    render.write(SIGNATURE | {"html": "{{ agent.nmae }} <img src='file:none.png'>"})
    done = render("signature", "support")
    assert (done.exit_code, done.out) == (1, "")
    assert 'unknown variable "agent.nmae"; did you mean "name"?' in done.err
    assert "none.png does not exist" in done.err
