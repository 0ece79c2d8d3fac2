"""Arguments that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

import argparse


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def add_listing(parser: argparse.ArgumentParser) -> None:
    """Listings show what is open; these show more, less, or the same for programs."""
    parser.add_argument("--all", action="store_true", help="also what is settled")
    parser.add_argument("--limit", type=_one_or_more, metavar="N", help="the newest N")
    add_json(parser)


def _one_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return min(int(text), 1 << 62)  # SQLite's integers end there
