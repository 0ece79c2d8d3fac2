"""`auto-reply list | forget`: who has had an automatic answer, and who may have one again."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from gateway import events
from gateway.desk import Args, Command, Desk, find_touchpoint, rfc3339
from gateway.errors import CommandError
from gateway.model import from_ms, show_id
from gateway.rules.answering import ledger_key
from gateway.state import answers


async def _list(desk: Desk, args: Args) -> Any:
    """Return who was answered, the newest first. `until`: when they may have the next one; null: at once."""
    touchpoint = None if args.get("touchpoint") is None else find_touchpoint(desk, args["touchpoint"]).id
    now = datetime.now(UTC)
    found = []
    for id, address, at, outbox in await desk.store.read(answers.list_answered, touchpoint):
        known = desk.current().touchpoints.get(id)
        reply = known.auto_reply if known is not None else None
        until = None if reply is None else from_ms(at) + reply.every
        if until is not None and until <= now:
            until = None
        if until is not None or args.get("all"):
            found.append(
                {
                    "touchpoint": id,
                    "address": address,
                    "at": rfc3339(from_ms(at)),
                    "until": rfc3339(until),
                    "outbox": show_id(outbox) if outbox else None,
                }
            )
    return found[: args.get("limit")]


async def _forget(desk: Desk, args: Args) -> Any:
    """Let one sender, or everybody, have an automatic answer again. Returns `forgotten`, how many they are."""
    touchpoint = find_touchpoint(desk, args["touchpoint"]).id
    address = args.get("address")
    key = None if address is None else ledger_key(address.encode("utf-8", "replace").decode())
    forgotten = await desk.store.submit(answers.forget, (touchpoint, key))
    if address is not None and not forgotten:
        raise CommandError(
            f"{address} has had no automatic reply of {touchpoint};"
            f" `mail-gateway auto-reply list {touchpoint} --all` shows who has"
        )
    if desk.health is not None:  # the log is the daemon's
        events.say("auto-replies-forgotten", touchpoint=touchpoint, address=address, senders=forgotten)
    return {"touchpoint": touchpoint, "address": key, "forgotten": forgotten}


COMMANDS: Final[Mapping[str, Command]] = {"auto-reply.list": _list, "auto-reply.forget": _forget}
