"""`outbox list | show | retry`: outbound mail."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from gateway.cli import arguments, client, show


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("outbox", help="outbound mail").add_subparsers(metavar="ACTION", required=True)
    listing = group.add_parser("list", parents=[config], help="what has not left yet")
    arguments.add_listing(listing)
    listing.set_defaults(run=list_)
    showing = group.add_parser("show", parents=[config], help="one message: every recipient and the last reply")
    showing.add_argument("id", help="as in `outbox list`, or of the 250 reply")
    arguments.add_json(showing)
    showing.set_defaults(run=show_)
    retrying = group.add_parser("retry", parents=[config], help="try now what waits for its time")
    which = retrying.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", help="one message")
    which.add_argument("--touchpoint", metavar="T", help="all of one touchpoint (its id or address)")
    which.add_argument("--all", action="store_true", help="everything")
    retrying.set_defaults(run=retry)


def list_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "outbox.list", all=options.all, limit=options.limit)
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("ID", "STATE", "TRIES", "NEXT", "AGE", "FROM", "TO", "AGENT", "SUBJECT", "REPLY"),
        (
            (
                m["id"],
                r["state"],
                r["attempts"],
                show.ago(r["next_attempt_at"]),
                show.ago(m["accepted_at"]),
                m["touchpoint"],
                r["address"],
                m["agent"],
                m["subject"],
                r["reply"] or m["cause"],
            )
            for m in found
            for r in m["recipients"]
        ),
    )
    if not found:
        print("the outbox is empty" if not options.all else "nothing was ever sent", file=sys.stderr)
    return 0


def show_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "outbox.show", id=options.id)
    if options.json:
        show.as_json(found)
        return 0
    show.facts(found, ("id", "touchpoint", "agent", "message_id", "subject", "accepted_at", "cause"))
    print()
    show.table(
        ("TO", "STATE", "TRIES", "NEXT", "REPLY"),
        (
            (r["address"], r["state"], r["attempts"], show.ago(r["next_attempt_at"]), r["reply"])
            for r in found["recipients"]
        ),
    )
    return 0


def retry(options: argparse.Namespace) -> int:
    count = client.ask(options.config, "outbox.retry", id=options.id, touchpoint=options.touchpoint, all=options.all)
    print(f"{count} recipient{'s' * (count != 1)} will be tried now")
    return 0
