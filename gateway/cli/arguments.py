"""Arguments that several commands share, so that they are spelt and explained alike."""

from __future__ import annotations

import argparse
import re
from typing import Final

_SECONDS: Final = {"s": 1, "m": 60, "min": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="for programs")


def add_listing(parser: argparse.ArgumentParser) -> None:
    """Listings show what is open; these show more, less, or the same for programs."""
    parser.add_argument("--all", action="store_true", help="also what is settled")
    add_limit(parser)
    add_json(parser)


def add_limit(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--limit", type=one_or_more, metavar="N", help="the newest N")


def add_since(parser: argparse.ArgumentParser, help: str, default: str | None = None) -> None:
    """`--since 2d` → `options.since`, in seconds; None where it is not given and has no default."""
    span = None if default is None else _span(default)
    parser.add_argument("--since", type=_span, metavar="TIME", default=span, help=help)


def _span(text: str) -> int:
    found = re.fullmatch(r"(\d{1,9})\s*(s|m|min|h|d|w)", text.strip().lower(), re.ASCII)
    if found is None:
        raise argparse.ArgumentTypeError(f"{text!r} is no time; write for example 2d, 12h or 30min")
    return int(found[1]) * _SECONDS[found[2]]


def one_or_more(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of 1 or more")
    return min(int(text), 1 << 62)  # SQLite's integers end there
