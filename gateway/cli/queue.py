"""`queue list | show | read`: inbound conversations and notices."""

from __future__ import annotations

import argparse
import base64
import sys
from pathlib import Path
from typing import Any

from gateway.cli import arguments, client, show
from gateway.cli.reading import harmless, readable
from gateway.text import clean

_NOTE_LETTERS = 1_000


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("queue", help="inbound conversations and notices").add_subparsers(
        metavar="ACTION", required=True
    )
    listing = group.add_parser("list", parents=[config], help="what is open")
    listing.add_argument("queue", nargs="?", help="only this queue")
    arguments.add_listing(listing)
    listing.set_defaults(run=list_)
    showing = group.add_parser("show", parents=[config], help="one conversation: its messages and why they are here")
    showing.add_argument("id", help="of a conversation or of one of its messages")
    arguments.add_json(showing)
    showing.set_defaults(run=show_)
    reading = group.add_parser("read", parents=[config], help="the messages themselves")
    reading.add_argument("id", help="of a conversation, or of one message to read only that")
    form = reading.add_mutually_exclusive_group()
    form.add_argument("--raw", action="store_true", help="the bytes as they came")
    form.add_argument("--save", type=Path, metavar="DIR", help="write ID.eml files into DIR")
    form.add_argument("--json", action="store_true", help="for programs; the bytes in base64")
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
    show.facts(found, ("id", "touchpoint", "state", "owner", "from", "subject", "priority", "queues", "tags"))
    for message in found["messages"]:
        print()
        print(f"{_line(message)}  {clean(message['from'] or '')}  {message['size']} bytes")
        if message["note"]:
            print(f"  {clean(message['note'], _NOTE_LETTERS)}")
        show.table(
            ("STEP", "DETAIL", "VERDICT"),
            ((step["step"], step["detail"], step["verdict"]) for step in message["trail"]),
            indent="  ",
        )
    return 0


def _line(message: dict[str, Any]) -> str:
    return f"{'→' if message['direction'] == 'outbound' else '←'} {message['id']}  {message['at']}"


def read(options: argparse.Namespace) -> int:
    with client.asking(options.config) as ask:
        messages = ask("queue.read", id=options.id)
        if options.save is not None:
            options.save.mkdir(parents=True, exist_ok=True)
        for number, message in enumerate(messages):
            raw = _bytes(ask, message)
            if options.json:
                message["raw"] = base64.b64encode(raw).decode()
            elif options.save is not None:
                path = options.save / f"{message['id']}.eml"
                path.write_bytes(raw)
                print(path)
            elif options.raw:
                _print_raw(raw)
            else:
                note = f"\n{clean(message['note'], _NOTE_LETTERS)}" if message["note"] else ""
                print("\n" * (number > 0) + f"{_line(message)}{note}\n\n{readable(raw)}")
    if options.json:
        show.as_json(messages)
    return 0


def _bytes(ask: client.Ask, message: dict[str, Any]) -> bytes:
    parts: list[bytes] = []
    while (part := ask("message.chunk", id=message["id"], number=len(parts))) is not None:
        parts.append(base64.b64decode(part))
    if not parts:
        print(f"{message['id']}: its bytes are no longer kept", file=sys.stderr)
    return b"".join(parts)


def _print_raw(raw: bytes) -> None:
    if sys.stdout.isatty():  # a letter must not drive the terminal; a pipe gets every byte
        print(harmless(raw.decode("utf-8", "replace").replace("\r\n", "\n")))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(raw)
