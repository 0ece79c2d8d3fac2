"""Draws the pictures of docs/signatures.md anew: `.venv/bin/python docs/pictures/make.py`, where a Chromium is."""

from __future__ import annotations

import io
import shutil
import sys
import tempfile
from datetime import date
from pathlib import Path

from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from gateway import config  # noqa: E402
from gateway.outbound.signature.inject import inject  # noqa: E402
from gateway.outbound.signature.render import context, render  # noqa: E402
from gateway.preview import browser, letter  # noqa: E402
from gateway.preview.page import page  # noqa: E402
from gateway.preview.sheet import sheet  # noqa: E402

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Example Support"
direction = "outbound"
smtp = "smtps://smtp.example.com"
variables = { phone = "+351 21 000 0000" }
signature = { active = true, html = "file:signatures/support.html", text = "file:signatures/support.txt" }

[[agent]]
login = "ana@example.com"
name = "Ana Lima"
touchpoints = ["support"]
variables = { title = "Support engineer" }
"""
PICTURES = {  # what each shows: a mail of the corpus, and how it is looked at
    "outlook": ("01-outlook-windows-reply", [browser.Shot(500), browser.Shot(500, is_dark=True)]),
    "phone": ("09-thunderbird-reply-html", [browser.Shot(360), browser.Shot(360, is_dark=True)]),
}


def signed(home: Path, name: str) -> bytes:
    current = config.load(home / "gateway.toml")
    touchpoint, agent = current.touchpoints["support"], current.agents["ana@example.com"]
    assert touchpoint.signature is not None
    signature = render(
        touchpoint.signature.html,
        touchpoint.signature.text,
        context(touchpoint, agent, subject="Password", on=date(2026, 11, 23)),
        images={file: image.data for file, image in touchpoint.signature.images.items()},
    )
    return inject((ROOT / "tests" / "data" / "signature" / f"{name}.eml").read_bytes(), signature).raw


def draw(raw: bytes, shots: list[browser.Shot], path: Path) -> None:
    taken = browser.take(page(letter.read(raw)), shots, browser.find())
    titles = [f"{'dark' if shot.is_dark else 'light'}, {shot.width} pixels" for shot in shots]
    panels = [(title, picture.png) for title, picture in zip(titles, taken, strict=True)]
    drawn = Image.open(io.BytesIO(sheet([panels])))
    drawn.quantize(96, dither=Image.Dither.NONE).save(path, optimize=True)
    print(f"{path.name}: {path.stat().st_size} bytes")


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        shutil.copytree(ROOT / "etc" / "signatures", home / "signatures")
        (home / "gateway.toml").write_text(f'hostname = "gateway.example.com"\nstate_dir = "{home}"\n')
        (home / "rules.toml").write_text(RULES)
        for name, (mail, shots) in PICTURES.items():
            draw(signed(home, mail), shots, ROOT / "docs" / "pictures" / f"{name}.png")
        # A logo of dark letters on nothing: what the dark look, and the lint, are there to find
        logo = Image.new("RGBA", (96, 96), (0, 0, 0, 0))
        ImageDraw.Draw(logo).ellipse((4, 4, 92, 92), outline=(20, 20, 20, 255), width=10)
        logo.save(home / "signatures" / "logo.png")
        shots = [browser.Shot(500), browser.Shot(500, is_dark=True)]
        draw(signed(home, "03-gmail-web-new"), shots, ROOT / "docs" / "pictures" / "vanished.png")


if __name__ == "__main__":
    main()
