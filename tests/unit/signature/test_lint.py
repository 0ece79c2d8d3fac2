"""What the linter says, rule by rule, each beside something that it lets pass."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from gateway.outbound.signature.lint import Remark, Severity, lint

GOOD = '<img src="file:logo.png" alt="Example" width="40" height="20">'
ETC = Path(__file__).parents[3] / "etc" / "signatures"


def picture(ink: str, ground: str | None = None, size: tuple[int, int] = (40, 20), kind: str = "PNG") -> bytes:
    """A frame in this colour, on a ground or on nothing."""
    drawn = Image.new("RGBA", size, ground or (0, 0, 0, 0))
    ImageDraw.Draw(drawn).rectangle((2, 2, size[0] - 3, size[1] - 3), outline=ink, width=4)
    file = io.BytesIO()
    (drawn if kind == "PNG" else drawn.convert("RGB")).save(file, kind)
    return file.getvalue()


LOGO = {"logo.png": picture("#777777")}


def said(html: str, text: str = "", images: dict[str, bytes] | None = None) -> list[str]:
    return [f"{one.line}: {one.message}" for one in lint(html, text, LOGO if images is None else images)]


@pytest.mark.parametrize(
    ("html", "remark"),
    [
        ('<p>\n<img src="file:logo.png" width="40" height="20">', "2: the picture 'logo.png' has no alt: write"),
        ('<img src="http://x.example/l.png" alt="x" width="4" height="2">', "comes over http: readers see a warning"),
        ('<img src="https://x.example/l.png" alt="x" width="4" height="2">', "is loaded from elsewhere"),
        ('<img src="file:logo.png" alt="x" width="40">', "has no height: Outlook shows it in its own size"),
        ('<img src="file:logo.png" alt="x">', "has no width and no height"),
        ('<img src="file:logo.png" alt="x">', "(its own are 40 and 20)"),
        ('<img src="file:logo.png" alt="x" width="40" height="40">', "is drawn out of shape: 40 × 40 of 40 × 20"),
        ("<p>x\n\n<table><tr><td>x", "3: <table> has no width"),
        ("<a>x</a>", "<a> leads nowhere"),
        ('<p style="color: #999">x', "#999999 on white has a contrast of 2.8"),
        ('<p style="color: #eee; background: #fff">x', "#eeeeee on #ffffff has a contrast of 1.2"),
        ("<font color=silver>x", "#c0c0c0 on white has a contrast of 1.8"),
        ('<p style="color: #222">x', "#222222 without a ground of its own has a contrast of 1.0 in dark mode"),
        ("<style>p { color: #222 }</style><p>x", "None: #222222 without a ground of its own"),
        (
            "<style>@media (prefers-color-scheme: dark) { p { color: #333 } }</style><p>x",
            "None: in its own dark style #333333 on the dark ground of the program has a contrast of 1.3",
        ),
        (
            "<style>p { background: #fff; color: #000 } @media (prefers-color-scheme: dark) { p { color: #fff } }"
            "</style><p>x",
            "None: in its own dark style #ffffff on #ffffff has a contrast of 1.0",
        ),
        ('<td bgcolor="#fff">\n<b>x', "text without a colour stands on #ffffff: in dark mode it turns white there"),
        ('<td bgcolor="#202020">x', "text without a colour stands on #202020: it is black there"),
        ("x\n<script>y</script>", "2: left out: <script>"),
        ('<p onclick="x">x', "left out: onclick of <p>: nothing may act in a mail"),
        ("x" * 30_000, "None: the HTML has 29 KiB: Gmail cuts"),
    ],
)  # fmt: skip
def test_it_remarks_on(html: str, remark: str) -> None:
    assert any(remark in one for one in said(html)), said(html)


@pytest.mark.parametrize(
    "html",
    [
        "",
        GOOD,
        GOOD.replace('alt="Example"', 'alt=""'),
        '<img src="file:logo.png" alt="x" style="width: 40px; height: 20px">',
        '<img src="{{ agent.photo }}" alt="x" width="40" height="20">',
        '<img src="file:logo.png" alt="x" width="20" height="10">',
        '<table width="300"><tr><td>x',
        '<table style="max-width: 300px"><tr><td>x',
        '<a href="https://x.example">x</a>',
        '<p style="color: #767676">x',
        '<p style="color: #222; background-color: #fff">x',
        '<div style="background: white; color: black"><p>x',
        '<p style="background: #808080">x',
        '<p style="color: inherit; background: transparent">x',
        "<style>p { color: #222 } @media (prefers-color-scheme: dark) { p { color: #eee } }</style><p>x",
        "<style>body { color: #222 } @media (prefers-color-scheme: dark) { body { color: #eee } }</style><p>x",
        '{% if agent.title is defined %}<b style="{{ agent.style }}">{{ agent.title }}</b>{% endif %}',
    ],
)
def test_it_says_nothing_about(html: str) -> None:
    assert said(html) == []


@pytest.mark.parametrize(
    ("data", "remark"),
    [
        (picture("black"), "is dark and transparent: in dark mode it cannot be seen"),
        (picture("white"), "is light and transparent: on white it cannot be seen"),
        (picture("black", "white"), None),
        (picture("black", kind="JPEG"), None),
        (picture("black", kind="BMP"), None),
        (picture("#777777"), None),
        (picture("black")[:60], "cannot be read: the file is damaged"),
    ],
    ids=["dark", "light", "on-white", "jpeg", "bmp", "grey", "damaged"],
)
def test_a_logo_is_looked_at_on_both_grounds(data: bytes, remark: str | None) -> None:
    found = said(GOOD, images={"logo.png": data})
    assert [remark in one for one in found if remark] == [True] * bool(remark)
    assert bool(found) == bool(remark)


def test_a_dark_logo_on_a_ground_of_its_own_is_fine() -> None:
    html = f'<table width="300" style="background: #fff; color: #000"><tr><td>{GOOD}</td></tr></table>'
    assert said(html, images={"logo.png": picture("black")}) == []


def test_a_picture_of_a_million_squares_is_not_unpacked() -> None:
    file = io.BytesIO()
    Image.new("1", (30_000, 30_000)).save(file, "PNG")
    assert said(GOOD, images={"logo.png": file.getvalue()}) == [
        "1: the picture 'logo.png' cannot be read: the file is damaged, or has far too many pixels",
        "None: it adds 142 KiB to every mail; less than 100 is usual",
    ]


def test_the_text_has_lines_of_its_own() -> None:
    assert lint("", "fine\n<b>Ana</b>\n" + "x" * 79) == [
        Remark(2, Severity.WARNING, "HTML in the text: it is shown as it is written", is_text=True),
        Remark(3, Severity.HINT, "a line of 79 letters: beyond 78 some programs break it", is_text=True),
    ]
    assert lint("", "{{ agent.name }} <{{ touchpoint.address }}>\n" + "x" * 78) == []


def test_only_what_nobody_should_send_is_an_error() -> None:
    found = lint('<img src="http://x/y.png"><p style="color: #eee">x</p>', "")
    assert {one.severity for one in found if "over http" in one.message} == {Severity.ERROR}
    assert {one.severity for one in found if "over http" not in one.message} == {Severity.WARNING}


def test_the_example_that_we_give_is_beyond_reproach() -> None:
    html, text = (ETC / "support.html").read_text(), (ETC / "support.txt").read_text()
    assert said(html, text, {"logo.png": (ETC / "logo.png").read_bytes()}) == []
