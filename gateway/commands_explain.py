"""Handlers behind `explain` and `rules diff`: they hand over what is known of a message; the command judges it.

So a thousand messages that are judged again, or one that is meant to do harm, take the time of nobody's mail.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway.desk import Args, Command, Desk, find_touchpoint, id_of
from gateway.errors import CommandError
from gateway.model import id_at, read_id, show_id, to_ms
from gateway.state import answers, blocks, judged


async def _message(desk: Desk, args: Args) -> Any:
    """Return the message of this id, or the only one of the conversation, as `judged.page` does."""
    number = id_of(args["id"], "queue")
    found = await desk.store.read(judged.find, number)
    if found is None and (ids := await desk.store.read(judged.of_conversation, number)):
        if len(ids) > 1:
            shown = ", ".join(show_id(id) for id in ids[-10:])
            raise CommandError(f"{args['id']} is a conversation; say which of its messages is meant: {shown}", 2)
        found = await desk.store.read(judged.find, ids[0])
    if found is None:
        raise CommandError(f"no message {args['id']} came in; `mail-gateway trace` looks for others")
    return found


async def _page(desk: Desk, args: Args) -> Any:
    """Return the next messages behind the id `after`, and none older than `since` seconds."""
    after = read_id(args["after"]) or 0 if args.get("after") else 0
    if args.get("since") is not None:
        after = max(after, id_at(to_ms(datetime.now(UTC) - timedelta(seconds=args["since"]))) - 1)
    return await desk.store.read(judged.page, after)


async def _sender(desk: Desk, args: Args) -> Any:
    """Return since when a touchpoint knows a sender (ms), None where it does not."""
    touchpoint = find_touchpoint(desk, args["touchpoint"]).id
    return await desk.store.read(judged.known_since, touchpoint, args["address"])


async def _blocks(desk: Desk, args: Args) -> Any:
    """Return [touchpoint, pattern] of every block."""
    return await desk.store.read(blocks.all_blocks)


async def _answer_key(desk: Desk, args: Args) -> Any:
    """Return the number by which automatic answers of ours are known again, None where there was none yet."""
    return await desk.store.read(answers.find_key)


COMMANDS: Final[Mapping[str, Command]] = {
    "judged.find": _message,
    "judged.page": _page,
    "judged.sender": _sender,
    "judged.blocks": _blocks,
    "judged.answer_key": _answer_key,
}
