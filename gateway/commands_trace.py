"""`trace`: what became of a message, or a line for each that matches."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Final

from gateway.desk import Args, Command, Desk, find_touchpoint, stopped_in
from gateway.errors import CommandError
from gateway.model import id_at, read_id, to_ms
from gateway.state import outbox, tracing
from gateway.state.outbox import Stopped
from gateway.state.tracing import Search, Step

_ALL: Final = 1 << 46  # above every id


async def _trace(desk: Desk, args: Args) -> list[Step]:
    """Return the life of the one message that `what` (id, Message-ID or address) and `subject` mean, or a line for each
    of several: at most `limit`, the newest. Raises CommandError where there is none.
    """
    stopped = stopped_in(desk.current())
    what, subject = _text(args.get("what")), _text(args.get("subject"))
    if not what and not subject:
        raise CommandError("say what to look for: an id, a Message-ID, an address, or --subject", 2)
    if what and "@" not in what and "*" not in what:
        return await _by_id(desk, what, stopped)
    found = await _find(desk, what, subject, args)
    if not found:
        raise CommandError(f"nothing that is kept matches {what or repr(subject)}")
    if len(found) > 1:
        return found
    (line,) = found
    life = await desk.store.read(tracing.life_of, read_id(line["id"]) or 0, stopped)
    return life or found


async def _by_id(desk: Desk, what: str, stopped: Stopped) -> list[Step]:
    number = read_id(what)
    if number is None:
        raise CommandError(f"{what!r} is neither an id, nor a Message-ID, nor an address", 2)
    found: list[Step] | None = await desk.store.read(tracing.life_of, number, stopped)
    found = found or await desk.store.read(tracing.members_of, number)
    if not found:
        raise CommandError(f"no message and no conversation {what}")
    return found


async def _find(desk: Desk, what: str, subject: str, args: Args) -> list[Step]:
    touchpoint = find_touchpoint(desk, args["touchpoint"]).id if args.get("touchpoint") is not None else ""
    since = _since_id(args.get("since"))
    limit = args.get("limit")
    if what and not subject and "*" not in what:
        known = {*desk.current().touchpoints, *await desk.store.read(outbox.count_open)}
        found = await desk.store.read(tracing.find_by_thread, what, sorted({touchpoint} if touchpoint else known))
        if found := [line for line in found if (read_id(line["id"]) or 0) >= since]:
            return found[-limit:] if limit else found
    searches = [Search(address=what.lower(), subject=subject, touchpoint=touchpoint, since_id=since)]
    if what and "*" not in what:
        by_id = Search(message_id=what, subject=subject, touchpoint=touchpoint, since_id=since)
        searches = [by_id] if what.startswith("<") else [*searches, by_id]
    for search in searches:
        if found := await _search(desk, search, limit):
            return found
    return []


async def _search(desk: Desk, search: Search, limit: int | None) -> list[Step]:
    """Go through both tables from the newest back, until `limit` are found in each."""
    ids: list[int] = []
    for table in ("message", "outbox"):
        found: list[int] = []
        before: int | None = _ALL
        while before is not None and (limit is None or len(found) < limit):
            some, before = await desk.store.read(tracing.find_in, table, search, before)
            found += some
        ids += found
    newest = sorted(ids)[-limit:] if limit else ids
    return await desk.store.read(tracing.lines_of, newest)


def _since_id(seconds: float | None) -> int:
    return 0 if seconds is None else max(0, id_at(to_ms(datetime.now(UTC) - timedelta(seconds=seconds))))


def _text(value: object) -> str:
    # a shell may hand over bytes that are no text
    return str(value).strip().encode("utf-8", "replace").decode() if value else ""


COMMANDS: Final[Mapping[str, Command]] = {"trace": _trace}
