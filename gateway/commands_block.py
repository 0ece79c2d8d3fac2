"""`block list | add | remove`: whose mail no longer reaches queues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from gateway import events
from gateway.config import Config
from gateway.desk import Args, Command, Desk, find_touchpoint, id_of
from gateway.errors import CommandError
from gateway.model import show_id, to_ms
from gateway.rules.blocking import covered, is_whole_provider, parse_block
from gateway.rules.chain import SenderList
from gateway.state import blocks
from gateway.state.blocks import EVERYWHERE, Added, NewBlock

_LOOKED_BACK: Final = timedelta(days=30)
_FILE: Final = "rules.toml"


async def _list(desk: Desk, args: Args) -> Any:
    """Return the blocks, the newest first, then what stands in the file."""
    found = [one | {"source": "block"} for one in await desk.store.read(blocks.list_blocks)]
    unknown = dict.fromkeys(("touchpoint", "by", "at", "message", "hits", "hit_at"))
    found += [{"pattern": one, **unknown, "source": _FILE} for one in desk.current().rules.spam.blocklist]
    return found[: args.get("limit")]


async def _add_senders(desk: Desk, args: Args) -> Any:
    """Block who sent these messages; return of each what followed, or why not (`refused`)."""
    found = await desk.store.read(blocks.senders, [id_of(one, "quarantine") for one in args["messages"]])
    done: list[dict[str, Any]] = []
    for address, message in found.items():
        try:
            done.append(await _add(desk, {"address": address, "message": show_id(message)}))
        except CommandError as error:  # one of our own, in whose name others write
            done.append({"pattern": address, "refused": str(error)})
    return done


async def _add(desk: Desk, args: Args) -> Any:
    pattern = _parse(args["address"])
    touchpoint = EVERYWHERE if args.get("touchpoint") is None else find_touchpoint(desk, args["touchpoint"]).id
    message = id_of(args["message"], "queue") if args.get("message") else None
    _refuse_our_own(desk.current(), pattern)
    _refuse_what_has_no_effect(desk.current(), pattern)
    if is_whole_provider(pattern) and not args.get("yes"):
        raise CommandError(await _consequences(desk, touchpoint, pattern))
    added = await block(desk, NewBlock(touchpoint, pattern, to_ms(datetime.now(UTC)), message=message))
    return {
        "pattern": pattern,
        "touchpoint": touchpoint or None,
        "is_new": added.is_new,
        "messages": [show_id(one) for one in added.messages],
        "conversations": [show_id(one) for one in added.conversations],
    }


async def block(desk: Desk, new: NewBlock) -> Added:
    """Block, and take along what is open. It is in force for whatever is judged from now on, and durable on return."""
    was_known = desk.blocks.has(new.touchpoint, new.pattern)
    # Ahead of the commit: what is judged without it now has been handed to the store, and is found by `add`
    desk.blocks.learn(new.touchpoint, new.pattern)
    try:
        found = await desk.store.read(blocks.suspects, new.touchpoint, new.pattern)
        added = await desk.store.submit(blocks.add, _with(new, found))
    except Exception:
        if not was_known:
            desk.blocks.forget(new.touchpoint, new.pattern)
        raise
    for touchpoint in added.touchpoints:
        desk.ring(f"mailbox {touchpoint}")
    if desk.health is not None:  # the log is the daemon's
        events.say("blocked", pattern=new.pattern, touchpoint=new.touchpoint or None, messages=len(added.messages))
    return added


def _with(new: NewBlock, suspects: blocks.Suspects) -> NewBlock:
    return NewBlock(new.touchpoint, new.pattern, new.at, new.agent, new.message, suspects)


async def _remove(desk: Desk, args: Args) -> Any:
    pattern = _parse(args["address"])
    touchpoint = EVERYWHERE
    if (name := args.get("touchpoint")) is not None:
        # also of a touchpoint that the file has no more
        touchpoint = name if desk.blocks.has(name, pattern) else find_touchpoint(desk, name).id
    removed = await desk.store.submit(blocks.remove, (touchpoint, pattern))
    desk.blocks.forget(touchpoint, pattern)
    in_file = SenderList(desk.current().rules.spam.blocklist).find([pattern])
    if not removed.is_gone:
        raise CommandError(_why_not(pattern, touchpoint, removed.elsewhere, in_file))
    if desk.health is not None:
        events.say("unblocked", pattern=pattern, touchpoint=touchpoint or None)
    still = [f"for {_place(one)}" for one in removed.elsewhere] + ([f"in {_FILE}"] if in_file else [])
    return {"pattern": pattern, "touchpoint": touchpoint or None, "still": still}


def _why_not(pattern: str, touchpoint: str, elsewhere: Iterable[str], in_file: object) -> str:
    for one in elsewhere:
        option = f" --touchpoint {one}" if one else ""
        return f"{pattern} is blocked for {_place(one)} only: mail-gateway block remove '{pattern}'{option}"
    if in_file:
        return f"{pattern} is on spam.blocklist in {_FILE}; take it out there, then: mail-gateway reload"
    of_touchpoint = f" for {touchpoint}" if touchpoint else ""
    return f"{pattern} is not blocked{of_touchpoint}; `mail-gateway block list` shows what is"


def _place(touchpoint: str) -> str:
    return touchpoint or "all touchpoints"


def _parse(text: str) -> str:
    try:
        return parse_block(text.encode("utf-8", "replace").decode())  # a shell may hand over bytes that are no text
    except ValueError as error:
        raise CommandError(str(error), 2) from None


def _refuse_our_own(current: Config, pattern: str) -> None:
    ours = dict(_our_own(current))
    if hit := covered(pattern, ours):
        rest = f" and {len(hit) - 1} more of ours" if len(hit) > 1 else ""
        what = "is our own" if hit[0].lower() == pattern else f"would block our own {hit[0]}"
        raise CommandError(f"{pattern} {what} ({ours[hit[0]]}){rest}; nothing was changed")


def _our_own(current: Config) -> Iterator[tuple[str, str]]:
    """Yield (address, whose it is)."""
    for agent in current.agents.values():
        yield from ((address, f"agent {agent.login}") for address in (agent.login, agent.email) if address)
    for touchpoint in current.touchpoints.values():
        yield from ((address, f"touchpoint {touchpoint.id}") for address in sorted(touchpoint.addresses))


def _refuse_what_has_no_effect(current: Config, pattern: str) -> None:
    if hit := SenderList(current.rules.spam.allowlist).find([pattern]):
        raise CommandError(
            f"{pattern} is on spam.allowlist in {_FILE} as {hit[1]}, which wins over every block;"
            " take it out there first"
        )


async def _consequences(desk: Desk, touchpoint: str, pattern: str) -> str:
    since = to_ms(datetime.now(UTC) - _LOOKED_BACK)
    caught = await desk.store.read(blocks.caught, touchpoint, pattern, since)
    option = f" --touchpoint {touchpoint}" if touchpoint else ""
    return (
        f"{pattern[2:]} is a whole mail provider. In the last {_LOOKED_BACK.days} days this would have caught"
        f" {caught.messages} messages of {caught.senders} senders, {caught.answered} of them in conversations that were"
        f" answered. Nothing was changed; to do it all the same: mail-gateway block add '{pattern}'{option} --yes"
    )


COMMANDS: Final[Mapping[str, Command]] = {
    "block.list": _list,
    "block.add": _add,
    "block.senders": _add_senders,
    "block.remove": _remove,
}
