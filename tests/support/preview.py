"""A site whose touchpoint has the signature that we ship as an example, and commands that look at it."""

from __future__ import annotations

import io
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tomlkit
from PIL import Image

from gateway.cli.main import main

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / "tests" / "data" / "signature"
LOGO = (0, 98, 155)  # the colour of the example's logo
SIGNATURE = {"active": True, "html": "file:signatures/support.html", "text": "file:signatures/support.txt"}
AUTO_REPLY = {
    "active": True,
    "subject": "Auto: {{ subject }}",
    "html": '<p>Dear {{ sender.name | default("customer") }},</p><p>your mail is here.</p>',
}
AGENTS: list[dict[str, Any]] = [
    {"login": "ana@example.com", "name": "Ana Lima", "ring_groups": ["support"], "variables": {"title": "Engineer"}},
    {"login": "bea@example.com", "name": "Bea Santos", "ring_groups": ["support"]},
    {"login": "caro@example.com", "name": "Caro Dias", "ring_groups": ["billing"]},
    {"login": "dora@example.com", "name": "Dora Cruz", "ring_groups": ["support"], "active": False},
]


@dataclass(frozen=True)
class Done:
    exit_code: int
    out: str
    err: str


class Preview:
    """A configuration in `home`, and `mail-gateway render …` in this process."""

    def __init__(self, home: Path, capture: pytest.CaptureFixture[str]) -> None:
        self.home = home
        self.config = home / "gateway.toml"
        self._capture = capture
        shutil.copytree(ROOT / "etc" / "signatures", home / "signatures")
        self.config.write_text(tomlkit.dumps({"hostname": "gateway.example", "state_dir": str(home / "state")}))
        self.write()

    def write(
        self,
        signature: Mapping[str, Any] | None = SIGNATURE,
        auto_reply: Mapping[str, Any] | None = AUTO_REPLY,
        agents: Sequence[Mapping[str, Any]] = AGENTS,
        **touchpoint: Any,
    ) -> None:
        """Write rules.toml with one touchpoint that sends and receives, and one that only receives."""
        support: dict[str, Any] = {
            "id": "support", "address": "support@example.com", "name": "Example Support", "active": True,
            "aliases": ["help@example.com"], "imap": "imaps://imap.example.com", "smtp": "smtps://smtp.example.com",
            "linked_queues": ["support"], "variables": {"phone": "+351 21 000 0000"}, **touchpoint,
        }  # fmt: skip
        if signature is not None:
            support["signature"] = dict(signature)
        if auto_reply is not None:
            support["auto_reply"] = dict(auto_reply)
        reports = {
            "id": "reports", "address": "reports@example.com", "name": "Reports", "direction": "inbound",
            "imap": "imaps://imap.example.com", "linked_queues": ["billing"], "signature": {"text": "Nobody"},
        }  # fmt: skip
        rules = {"touchpoint": [support, reports], "agent": [dict(agent) for agent in agents]}
        (self.home / "rules.toml").write_text(tomlkit.dumps(rules))

    def __call__(self, *words: str) -> Done:
        self._capture.readouterr()
        try:
            exit_code = main(["render", *words, "--config", str(self.config)])
        except SystemExit as left:  # argparse's way
            exit_code = left.code if isinstance(left.code, int) else 1
        return Done(exit_code, *self._capture.readouterr())

    def output(self, name: str, *words: str) -> bytes:
        """Have it written to a file of that name; return what is in it."""
        path = self.home / name
        done = self(*words, "--output", str(path))
        assert done.exit_code == 0, done.err
        assert done.out == ""
        assert f"written: {path}" in done.err
        return path.read_bytes()


def picture(png: bytes) -> Image.Image:
    return Image.open(io.BytesIO(png)).convert("RGB")


def pixels_of(image: Image.Image, colour: tuple[int, int, int], nearly: int = 6) -> int:
    """Return how many pixels have that colour, but for `nearly` in each channel."""
    counted = image.getcolors(image.width * image.height) or []
    return sum(
        count
        for count, found in counted
        if isinstance(found, tuple)
        and all(abs(one - other) <= nearly for one, other in zip(found, colour, strict=True))
    )


def letter(*fields: str, body: bytes = b"How do I reset my password?\r\n", sender: str = "") -> bytes:
    """Return a customer's mail, plain unless `fields` say something else."""
    head = [
        f"From: {sender or 'Carla Gomes <carla@customer.example>'}", "To: support@example.com", "Subject: Password",
        "Date: Mon, 23 Nov 2026 09:12:00 +0000", "Message-ID: <question@customer.example>", *fields,
    ]  # fmt: skip
    return "".join(f"{line}\r\n" for line in head).encode() + b"\r\n" + body
