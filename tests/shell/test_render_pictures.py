"""Pictures by a real Chromium: the right size, light and dark, of nothing but the page; and browsers that misbehave."""

from __future__ import annotations

import os
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from gateway import config
from gateway.outbound.signature.block import MARKER
from gateway.outbound.signature.inject import inject
from gateway.outbound.signature.render import context
from gateway.outbound.signature.render import render as fill
from gateway.preview import browser
from gateway.preview.browser import NoPicture, Shot
from gateway.preview.letter import read
from gateway.preview.page import page
from tests.support.preview import CORPUS, LOGO, Preview, letter, picture, pixels_of

WIDE, NARROW = 800, 360
DARKEST = 40  # a dark page may be a little lighter than black
LOGO_PIXELS = 1200  # of its 48 × 48, at least


@pytest.fixture
def render(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Preview:
    monkeypatch.delenv("MAIL_GATEWAY_CONFIG", raising=False)
    return Preview(tmp_path, capsys)


def program(folder: Path, name: str, script: str) -> Path:
    path = folder / name
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


# --- what a picture shows --------------------------------------------------------------------------------------------


def test_without_a_wish_one_sheet_has_all_four(render: Preview) -> None:
    sheet = picture(render.output("new.png", "signature", "support"))
    assert sheet.width > WIDE + NARROW
    assert pixels_of(sheet, LOGO) >= 4 * LOGO_PIXELS
    top, bottom = (
        sheet.crop((0, half * sheet.height // 2, sheet.width, (half + 1) * sheet.height // 2)) for half in (0, 1)
    )
    light, dark = pixels_of(top, (255, 255, 255)), pixels_of(bottom, (18, 18, 18))
    assert light > top.width * top.height / 3
    assert dark > bottom.width * bottom.height / 3
    assert pixels_of(bottom, (255, 255, 255)) < light / 10


@pytest.mark.parametrize(
    ("words", "width", "is_dark"),
    [
        (["--light", "--wide"], WIDE, False),
        (["--dark", "--wide"], WIDE, True),
        (["--light", "--narrow"], NARROW, False),
        (["--dark", "--narrow"], NARROW, True),
    ],
)
@pytest.mark.parametrize("command", ["signature", "auto-reply"])
def test_one_picture_is_just_that(render: Preview, command: str, words: list[str], width: int, is_dark: bool) -> None:
    image = picture(render.output("one.PNG", command, "support", *words))
    assert image.width == width
    ground = image.getpixel((width - 3, image.height - 3))
    assert isinstance(ground, tuple)
    assert max(ground) <= DARKEST if is_dark else min(ground) == 255
    if command == "signature":
        assert pixels_of(image, LOGO) >= LOGO_PIXELS  # pictures stay as they are in the dark


def test_half_a_wish_leaves_two(render: Preview) -> None:
    dark = picture(render.output("dark.png", "signature", "support", "--dark"))
    assert dark.width > WIDE + NARROW
    assert pixels_of(dark, (255, 255, 255)) < dark.width * dark.height / 20
    narrow = picture(render.output("narrow.png", "signature", "support", "--narrow"))
    assert NARROW < narrow.width < WIDE


def test_a_style_sheet_for_the_dark_is_used_in_the_dark(render: Preview) -> None:
    style = "<style>@media (prefers-color-scheme: dark) { .box { background: #00ff00 !important } }</style>"
    html = f"{style}<div class=box style='width: 99px; height: 99px; background: #ff0000'></div>"
    light, dark = browser.take(html, [Shot(300), Shot(300, is_dark=True)], browser.find())
    assert pixels_of(picture(light.png), (255, 0, 0)) == 99 * 99
    assert pixels_of(picture(dark.png), (255, 0, 0)) == 0


@pytest.mark.parametrize("name", [".box", "body"])
def test_a_style_of_one_s_own_for_the_dark_wins_over_what_is_in_the_elements(render: Preview, name: str) -> None:
    html = (
        f"<style>{name} {{ background: #ff0000 }}"
        f" @media (prefers-color-scheme: dark) {{ {name} {{ background: #00aa00 }} }}</style>"
        "<div class=box style='width: 99px; height: 99px'></div>"
    )
    safe = fill(html, "x", {}).html
    shots = browser.take(f'<div class="{MARKER}">{safe}</div>', [Shot(300), Shot(300, is_dark=True)], browser.find())
    light, dark = (picture(shot.png) for shot in shots)
    assert pixels_of(light, (255, 0, 0)) >= 99 * 99
    assert pixels_of(dark, (255, 0, 0)) == 0
    assert pixels_of(dark, (0, 170, 0), nearly=40) >= 99 * 99


@pytest.mark.parametrize("colour", [(20, 20, 20), (250, 250, 250)])
def test_a_logo_of_one_colour_on_nothing_vanishes_as_it_does_in_a_mail_client(
    render: Preview, colour: tuple[int, int, int]
) -> None:
    """Chromium alone would turn it inside out, which no mail client does, and nobody would see what is wrong."""
    logo = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
    ImageDraw.Draw(logo).ellipse((4, 4, 92, 92), fill=(*colour, 255))
    logo.save(render.home / "signatures" / "logo.png")
    for look in ("--light", "--dark"):
        image = picture(render.output("x.png", "signature", "support", "--wide", look))
        assert pixels_of(image, colour, nearly=1) > LOGO_PIXELS


def test_a_long_mail_is_shown_to_its_end_and_an_endless_one_is_cut(render: Preview) -> None:
    end = "<div style='width: 50px; height: 50px; background: #ff0000'></div>"
    (long,) = browser.take("<p>line</p>" * 60 + end, [Shot(300)], browser.find())
    assert picture(long.png).height > 1500
    assert pixels_of(picture(long.png), (255, 0, 0)) == 2500
    (endless,) = browser.take("<p>line</p>" * 600 + end, [Shot(300)], browser.find())
    assert picture(endless.png).height == browser.TALLEST


def test_what_a_phone_cuts_off_is_told(render: Preview) -> None:
    render.write({"active": True, "html": '<table width="500"><tr><td>Ana</td></tr></table>'})
    done = render("signature", "support", "--output", str(render.home / "x.png"))
    assert f"on {NARROW} pixels it is cut off: it needs 5" in done.err
    assert f"on {WIDE} pixels" not in done.err
    assert "quoted" not in done.err
    path = render.home / "q.eml"
    path.write_bytes(letter("Content-Type: text/html", body=b"<table width=700><tr><td>x</table>"))
    render.write()
    done = render("signature", "support", "--reply-to", str(path), "--output", str(render.home / "x.png"))
    assert f"on {NARROW} pixels it is cut off: it needs 7" in done.err
    assert "perhaps for what is quoted" in done.err


@pytest.mark.parametrize(
    "name",
    [
        path.stem
        for path in sorted(CORPUS.glob("*.eml"))
        if path.stem[:2] in ("01", "04", "06", "09", "13", "14", "15", "16", "21")
    ],
)
def test_the_logo_is_seen_in_every_client_s_mail(render: Preview, name: str) -> None:
    """In the picture of an agent's own mail, and as large as it should be: no style of the mail gets at it."""
    current = config.load(render.config)
    touchpoint = current.touchpoints["support"]
    assert touchpoint.signature is not None
    signature = fill(
        touchpoint.signature.html,
        touchpoint.signature.text,
        context(touchpoint, current.agents["ana@example.com"], subject="Password", on=date(2026, 11, 23)),
        images={file: image.data for file, image in touchpoint.signature.images.items()},
        unique="q1",
    )
    injected = inject((CORPUS / f"{name}.eml").read_bytes(), signature)
    assert injected.placed
    shots = [Shot(640), Shot(640, is_dark=True), Shot(NARROW)]
    for taken in browser.take(page(read(injected.raw)), shots, browser.find()):
        assert LOGO_PIXELS <= pixels_of(picture(taken.png), LOGO) <= 48 * 48
    assert taken.needs == NARROW


# --- nothing acts, nothing is asked ----------------------------------------------------------------------------------


@contextmanager
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """A port, and what came there."""
    came: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    connection.settimeout(5)
                    came.append(connection.recv(1000))
                    connection.sendall(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield server.getsockname()[1], came
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()


def test_the_network_is_out_of_reach_even_without_a_policy() -> None:
    with listener() as (port, came):
        html = (
            f'<link rel="stylesheet" href="http://127.0.0.1:{port}/a.css"><img src="http://127.0.0.1:{port}/b.png">'
            f'<img src="http://localhost:{port}/c.png"><iframe src="http://127.0.0.1:{port}/d.html"></iframe>'
        )
        browser.take(html, [Shot(300)], browser.find())
        assert came == []
        browser.take(html, [Shot(300)], browser.find(), remote=True)
        assert {request.split()[1] for request in came if request} >= {b"/b.png"}


def test_pictures_are_loaded_from_the_network_only_when_asked(render: Preview) -> None:
    with listener() as (port, came):
        render.write(
            {"active": True, "html": f'<img src="http://127.0.0.1:{port}/logo.png" alt="Logo" width=9 height=9>'}
        )
        render("signature", "support", "--output", str(render.home / "x.png"), "--light", "--wide")
        assert (render.home / "x.png").exists()
        assert came == []
        render("signature", "support", "--output", str(render.home / "x.png"), "--light", "--wide", "--remote")
        assert [request.split()[1] for request in came if request] == [b"/logo.png"]


def test_a_page_cannot_run_a_script_even_without_a_policy() -> None:
    html = (
        "<body style='background: #00ff00'><script>document.body.style.background = '#ff0000'</script>"
        "<img src=x onerror=\"document.body.style.background = '#ff0000'\">"
    )
    (taken,) = browser.take(html, [Shot(300)], browser.find())
    assert pixels_of(picture(taken.png), (255, 0, 0)) == 0
    assert pixels_of(picture(taken.png), (0, 255, 0)) > 300 * 200


def test_a_stranger_s_page_does_not_lead_elsewhere(render: Preview) -> None:
    html = b'<meta http-equiv="refresh" content="0; url=data:text/html,gone"><p>still here</p>'
    path = render.home / "q.eml"
    path.write_bytes(letter("MIME-Version: 1.0", "Content-Type: text/html", body=html))
    image = picture(render.output("re.png", "signature", "support", "--reply-to", str(path), "--light", "--wide"))
    assert pixels_of(image, LOGO) >= LOGO_PIXELS


def test_nothing_of_the_browser_is_left(render: Preview, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(folder))
    render.output("new.png", "signature", "support", "--light", "--wide")
    assert list(folder.iterdir()) == []
    assert _running_with(str(folder)) == []


def _running_with(word: str) -> list[str]:
    """Return the command lines of processes that name `word` and are no corpses."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit() and process.name != str(os.getpid()):
            try:
                line, state = (process / "cmdline").read_bytes(), (process / "stat").read_text().rpartition(")")[2][1]
            except OSError:
                continue
            if word.encode() in line and state != "Z":
                found.append(line.decode(errors="replace"))
    return found


# --- browsers --------------------------------------------------------------------------------------------------------


def test_without_a_browser_all_the_names_are_told(render: Preview, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(render.home))
    done = render("signature", "support", "--output", str(render.home / "x.png"))
    assert (done.exit_code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    for name in ("chromium", "chromium-browser", "google-chrome", "chromium-headless-shell", "chrome"):
        assert f"{name}," in done.err or f"{name} is" in done.err
    assert not (render.home / "x.png").exists()


def test_a_browser_that_does_not_start_is_passed_over(render: Preview, monkeypatch: pytest.MonkeyPatch) -> None:
    """As the `chromium-browser` of Ubuntu, which is advice to install the snap."""
    real = browser.find()[0]
    program(render.home, "chromium-headless-shell", "echo 'install the snap' >&2; exit 1")
    program(render.home, "chrome", f'exec {real} "$@"')
    monkeypatch.setenv("PATH", f"{render.home}:/usr/bin:/bin")
    monkeypatch.setattr(browser, "NAMES", ("chromium-headless-shell", "chrome"))
    assert picture(render.output("x.png", "signature", "support", "--light", "--wide")).width == WIDE


def test_a_browser_that_does_not_start_is_quoted(render: Preview) -> None:
    path = program(render.home, "odd", "echo 'No usable sandbox!' >&2; echo more >&2; exit 1")
    done = render("signature", "support", "--output", str(render.home / "x.png"), "--browser", str(path))
    assert (done.exit_code, done.out) == (1, "")
    assert done.err == f"mail-gateway: {path} does not start: No usable sandbox!\n"


def test_a_browser_that_is_no_program_is_told(render: Preview) -> None:
    done = render("signature", "support", "--output", str(render.home / "x.png"), "--browser", "frobnicate")
    assert (done.exit_code, done.err) == (1, "mail-gateway: there is no program frobnicate\n")
    path = render.home / "broken"
    path.write_bytes(b"\x7fELF")
    path.chmod(0o755)
    done = render("signature", "support", "--output", str(render.home / "x.png"), "--browser", str(path))
    assert done.exit_code == 1
    assert f"{path} cannot be started: " in done.err


@pytest.mark.parametrize("script", ["sleep 1000", "cat <&3 >/dev/null", "trap '' TERM; sleep 1000 & sleep 1000"])
def test_a_browser_that_hangs_is_ended_with_all_it_started(tmp_path: Path, script: str) -> None:
    mark = str(tmp_path)
    path = program(tmp_path, "slow", f"{script} # {mark}")
    with pytest.raises(NoPicture, match="has not finished the picture in time"):
        browser.take("<p>", [Shot(300)], [str(path)], timeout=0.5)
    assert _running_with(mark) == []


def test_a_browser_that_ends_in_the_middle_is_told(tmp_path: Path) -> None:
    answer = '{"id":1,"result":{"targetId":"x"}}'
    path = program(tmp_path, "short", f"head -c 1 <&3 >/dev/null; printf '{answer}\\0' >&4; exit 0")
    with pytest.raises(NoPicture, match="has ended in the middle"):
        browser.take("<p>", [Shot(300)], [str(path)])
