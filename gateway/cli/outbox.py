"""`outbox list | show | retry | hold | release | cancel | settle`: outbound mail."""

from __future__ import annotations

import argparse
import sys
from typing import Any, Final

from gateway.cli import arguments, client, show
from gateway.model import Signed
from gateway.text import clean

_NOTE_LETTERS: Final = 1_000
_NAMED: Final = 10


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
    _add_which(retrying).add_argument("--all", action="store_true", help="everything")
    retrying.set_defaults(run=retry)
    for name, run, help in (
        ("hold", hold, "keep what waits until a person releases it"),
        ("release", release, "let go what was held, and try it now"),
        ("cancel", cancel, "never send what waits; nobody is told"),
    ):
        asking = group.add_parser(name, parents=[config], help=help)
        _add_which(asking)
        asking.set_defaults(run=run)
    settling = group.add_parser("settle", parents=[config], help="decide what is uncertain: did the message leave?")
    settling.add_argument("id", help="as in `outbox list`")
    fate = settling.add_mutually_exclusive_group(required=True)
    fate.add_argument("--delivered", action="store_true", help="it did")
    fate.add_argument("--resend", action="store_true", help="it did not, or twice is better than never")
    settling.add_argument("--recipient", metavar="ADDRESS", help="only for this one")
    settling.set_defaults(run=settle)


def _add_which(parser: argparse.ArgumentParser) -> Any:
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("id", nargs="?", help="one message")
    which.add_argument("--touchpoint", metavar="T", help="all of one touchpoint (its id or address)")
    return which


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
                _next(r),
                show.ago(m["accepted_at"]),
                m["touchpoint"],
                r["address"],
                m["agent"],
                m["subject"],
                m["cause"] if r["state"] == "held" else r["reply"] or m["cause"],
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
    show.facts(
        found | {"signature": _signature(found["signature"])},
        ("id", "touchpoint", "agent", "message_id", "subject", "accepted_at", "signature", "cause"),
    )
    print()
    show.table(
        ("TO", "STATE", "TRIES", "NEXT", "REPLY"),
        ((r["address"], r["state"], r["attempts"], _next(r), r["reply"]) for r in found["recipients"]),
    )
    if bounced := [r["bounced"] for r in found["recipients"] if r["bounced"] is not None]:
        print("\ncame back later:")
        for note in bounced:
            print(f"  {clean(note, _NOTE_LETTERS)}")
    return 0


def _signature(became: str | None) -> str | None:
    return became if became is None or became in tuple(Signed) else f"left out: {became}"


def _next(recipient: dict[str, Any]) -> str:
    """Return when it is tried, or looked for in the provider's Sent folder."""
    if recipient["next_look_at"] is not None:
        return f"look {show.ago(recipient['next_look_at'])}"
    return show.ago(recipient["next_attempt_at"])


def retry(options: argparse.Namespace) -> int:
    count = client.ask(options.config, "outbox.retry", id=options.id, touchpoint=options.touchpoint, all=options.all)
    print(f"{_recipients(count)} will be tried now")
    return 0


def hold(options: argparse.Namespace) -> int:
    done = _ask(options, "outbox.hold")
    if options.touchpoint is not None:
        print(f"{options.touchpoint} is held: {_recipients(done['recipients'])} and all that follows wait")
    else:
        print(f"{_recipients(done['recipients'])} held")
    return _tell(done)


def release(options: argparse.Namespace) -> int:
    done = _ask(options, "outbox.release")
    print(f"{_recipients(done['recipients'])} released")
    return _tell(done)


def cancel(options: argparse.Namespace) -> int:
    done = _ask(options, "outbox.cancel")
    print(f"{_recipients(done['recipients'])} cancelled")
    return _tell(done)


def settle(options: argparse.Namespace) -> int:
    done = client.ask(
        options.config, "outbox.settle", id=options.id, delivered=options.delivered, recipient=options.recipient
    )
    print(f"{_recipients(done['recipients'])} {'settled as delivered' if options.delivered else 'to be sent again'}")
    return _tell(done)


def _ask(options: argparse.Namespace, command: str) -> Any:
    return client.ask(options.config, command, id=options.id, touchpoint=options.touchpoint)


def _tell(done: dict[str, Any]) -> int:
    """Say for whom it came too late; then it was done only in part."""
    if done["too_late"]:
        some = ", ".join(clean(address) for address in done["too_late"][:_NAMED])
        more = f" and {len(done['too_late']) - _NAMED} more" if len(done["too_late"]) > _NAMED else ""
        print(f"too late for {some}{more}: it is being sent", file=sys.stderr)
        return 1
    return 0


def _recipients(count: int) -> str:
    return f"{count} recipient{'s' * (count != 1)}"
