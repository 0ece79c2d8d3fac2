"""`trace`: what became of a message; of several that match, where each of them is."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from gateway.cli import arguments, client, show

_SHOWN: Final = 100  # newest matches on a terminal, unless asked for more


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    parser = commands.add_parser(
        "trace", parents=[config], help="what became of a message: in queues, quarantine, the outbox, or discarded"
    )
    parser.add_argument(
        "what",
        nargs="?",
        metavar="MESSAGE-ID|ID|ADDRESS",
        help="an id as lists and logs show it, a Message-ID, or an address of either side (*@domain for all of one)",
    )
    parser.add_argument("--subject", metavar="S", help="only what has this in its subject")
    parser.add_argument("--touchpoint", metavar="T", help="only mail of this one (its id or address)")
    arguments.add_since(parser, "only what came or was sent in this time, for example 2d")
    arguments.add_limit(parser)
    arguments.add_json(parser)
    parser.set_defaults(run=trace)


def trace(options: argparse.Namespace) -> int:
    limit = options.limit if options.limit is not None or options.json else _SHOWN
    found = client.ask(
        options.config,
        "trace",
        what=options.what,
        subject=options.subject,
        touchpoint=options.touchpoint,
        since=options.since,
        limit=limit,
    )
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("AT", "ID", "STEP", "DETAIL", "VERDICT"),
        ((line["at"] or "now", line["id"], line["step"], line["detail"], line["verdict"]) for line in found),
    )
    if limit is not None and len(found) == limit == len({line["id"] for line in found}):
        print(f"the newest {limit} that match; --limit N shows more, --since TIME looks less far back", file=sys.stderr)
    return 0
