"""`queue list | show | read`: inbound conversations and notices."""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

from gateway.cli import client, show
from gateway.cli.reading import readable
from gateway.text import clean


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("queue", help="inbound conversations and notices").add_subparsers(
        metavar="ACTION", required=True
    )
    listing = group.add_parser("list", parents=[config], help="what is open")
    listing.add_argument("queue", nargs="?", help="only this queue")
    listing.add_argument("--all", action="store_true", help="also what is settled")
    listing.add_argument("--limit", type=int, metavar="N", help="the newest N")
    listing.add_argument("--json", action="store_true")
    listing.set_defaults(run=list_)
    showing = group.add_parser("show", parents=[config], help="one conversation: its messages and why they are here")
    showing.add_argument("id")
    showing.add_argument("--json", action="store_true")
    showing.set_defaults(run=show_)
    reading = group.add_parser("read", parents=[config], help="the messages themselves")
    reading.add_argument("id", help="of a conversation or of one message")
    form = reading.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="the bytes as they came")
    form.add_argument("--save", type=Path, metavar="DIR", help="write ID.eml files into DIR")
    form.add_argument("--json", action="store_true")
    reading.set_defaults(run=read)


def list_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "queue.list", queue=options.queue, all=options.all, limit=options.limit)
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("ID", "QUEUES", "STATE", "PRIORITY", "LAST", "FROM", "SUBJECT"),
        (
            (c["id"], ",".join(c["queues"]), c["state"], c["priority"], show.ago(c["last_at"]), c["from"], c["subject"])
            for c in found
        ),
    )
    if not found:
        print("nothing is open" if not options.all else "nothing here", file=sys.stderr)
    return 0


def show_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "queue.show", id=options.id)
    if options.json:
        show.as_json(found)
        return 0
    for key in ("id", "touchpoint", "state", "owner", "from", "subject", "priority"):
        print(f"{key + ':':<12} {clean(str(found[key] if found[key] is not None else '-'))}")
    print(f"{'queues:':<12} {', '.join(found['queues'])}")
    print(f"{'tags:':<12} {', '.join(found['tags']) or '-'}")
    for message in found["messages"]:
        print()
        arrow = "→" if message["direction"] == "outbound" else "←"
        print(f"{arrow} {message['id']}  {message['at']}  {clean(message['from'] or '')}  {message['size']} bytes")
        show.table(
            ("STEP", "DETAIL", "VERDICT"),
            ((step["step"], step["detail"], step["verdict"]) for step in message["trail"]),
            indent="  ",
        )
    return 0


def read(options: argparse.Namespace) -> int:
    messages = client.ask(options.config, "queue.read", id=options.id)
    if options.json:
        show.as_json(messages)
        return 0
    for number, message in enumerate(messages):
        raw = base64.b64decode(message["raw"])
        if options.save is not None:
            options.save.mkdir(parents=True, exist_ok=True)
            path = options.save / f"{message['id']}.eml"
            path.write_bytes(raw)
            print(path)
        elif options.raw:
            sys.stdout.buffer.write(raw)
        else:
            print("\n" * (number > 0) + readable(raw))
    return 0
