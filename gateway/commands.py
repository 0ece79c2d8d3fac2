"""What the daemon does on request: one handler for each command, in the shapes of the manual.

The same handlers serve the control socket and, while no daemon runs, the command line itself (`desk.offline_desk`).
"""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from gateway import (
    commands_answers,
    commands_block,
    commands_explain,
    commands_rules,
    commands_touchpoints,
    commands_trace,
    events,
    recovery,
)
from gateway.config import Agent, Config, Touchpoint
from gateway.control import Handler
from gateway.desk import Args, Command, Desk, find_touchpoint, id_of, instead, rfc3339, stopped_in
from gateway.errors import CommandError, ConfigError
from gateway.health import Health, TouchpointHealth
from gateway.model import UNROUTED, personal_queue, show_id, to_ms
from gateway.state import agents, backup, conversations, lanes, lessons, outbox, quarantine
from gateway.state.lanes import Lane

RECONCILED: Final = (
    *("touchpoint", "folder", "role", "at_provider", "known", "owed", "older", "gaps", "gone", "unfetched", "error"),
)
_ORPHANED: Final = "orphaned-mail"
_FAULTS: Final = "faults"
_RESTORED: Final = "restored"
_FAULTS_SHOWN: Final = timedelta(minutes=10)


def handlers(desk: Desk) -> Mapping[str, Handler]:
    """Return every command by its name on the control socket."""

    def at_desk(function: Command) -> Handler:
        async def handler(args: Args) -> Any:
            return await function(desk, args)

        return handler

    return {
        "status": at_desk(_status),
        "reload": at_desk(_reload),
        "queue.list": at_desk(_queue_list),
        "queue.show": at_desk(_queue_show),
        "queue.read": at_desk(_queue_read),
        "message.chunk": at_desk(_message_chunk),
        "quarantine.list": at_desk(_quarantine_list),
        "quarantine.release": at_desk(_quarantine_release),
        "quarantine.confirm": at_desk(_quarantine_confirm),
        "reconcile": at_desk(_reconcile),
        "outbox.list": at_desk(_outbox_list),
        "outbox.show": at_desk(_outbox_show),
        "outbox.retry": at_desk(_outbox_retry),
        "outbox.hold": at_desk(_outbox_hold),
        "outbox.release": at_desk(_outbox_release),
        "outbox.cancel": at_desk(_outbox_cancel),
        "outbox.settle": at_desk(_outbox_settle),
        "backup": at_desk(_backup),
        "agent.list": at_desk(_agent_list),
        "agent.show": at_desk(_agent_show),
        "agent.passwd": at_desk(_agent_passwd),
        **{name: at_desk(command) for name, command in commands_answers.COMMANDS.items()},
        **{name: at_desk(command) for name, command in commands_block.COMMANDS.items()},
        **{name: at_desk(command) for name, command in commands_trace.COMMANDS.items()},
        **{name: at_desk(command) for name, command in commands_rules.COMMANDS.items()},
        **{name: at_desk(command) for name, command in commands_explain.COMMANDS.items()},
        **{name: at_desk(command) for name, command in commands_touchpoints.COMMANDS.items()},
    }


# --- queue -----------------------------------------------------------------------------------------------------------


async def _queue_list(desk: Desk, args: Args) -> Any:
    queue = args.get("queue")
    if queue is not None:
        queue = queue.encode("utf-8", "replace").decode()  # a shell may hand over bytes that are no text
    if queue is not None and queue.lower().startswith(personal_queue("")):
        queue = queue.lower()
    found = await desk.store.read(conversations.list_conversations, queue, bool(args.get("all")), args.get("limit"))
    named = desk.current().queue_names | {UNROUTED}
    known = named | {personal_queue(login) for login in desk.current().agents}
    if queue is not None and queue not in known and not found:  # one that the file has no more may still hold mail
        raise CommandError(f'unknown queue "{queue}"{instead(queue, known, named)}', 2)
    return found


async def _queue_show(desk: Desk, args: Args) -> Any:
    found = await desk.store.read(conversations.show_conversation, id_of(args["id"], "queue"))
    if found is None:
        raise CommandError(f"no conversation {args['id']}; `mail-gateway queue list --all` shows them")
    return found


async def _queue_read(desk: Desk, args: Args) -> Any:
    messages = await desk.store.read(conversations.find_messages, id_of(args["id"], "queue"))
    if not messages:
        raise CommandError(f"no conversation or message {args['id']}; `mail-gateway queue list --all` shows them")
    return messages


async def _message_chunk(desk: Desk, args: Args) -> Any:
    """Return one chunk of a message's bytes in base64, None behind the last: never 35 MB in one answer."""
    chunk = await desk.store.read(outbox.read_chunk, id_of(args["id"], "queue"), args["number"])
    return None if chunk is None else base64.b64encode(chunk).decode()


# --- quarantine ------------------------------------------------------------------------------------------------------


async def _quarantine_list(desk: Desk, args: Args) -> Any:
    return await desk.store.read(quarantine.list_quarantine, bool(args.get("all")), args.get("limit"))


async def _quarantine_release(desk: Desk, args: Args) -> Any:
    number = id_of(args["id"], "quarantine")
    review = quarantine.Review(number, to_ms(datetime.now(UTC)))
    return _reviewed(desk, args["id"], await desk.store.submit(quarantine.release, review), "is in quarantine")


async def _quarantine_confirm(desk: Desk, args: Args) -> Any:
    number = id_of(args["id"], "quarantine")
    review = quarantine.Review(number, to_ms(datetime.now(UTC)))
    return _reviewed(desk, args["id"], await desk.store.submit(quarantine.confirm, review), "waits to be looked at")


def _reviewed(desk: Desk, id: str, reviewed: quarantine.Reviewed, expected: str) -> dict[str, list[str]]:
    """Return what changed. What is to be done at the provider is done soon, and the scanner learns: both are woken."""
    if not reviewed.messages:
        raise CommandError(f"{id}: nothing of it {expected}; `mail-gateway quarantine list --all` shows what is there")
    for touchpoint in reviewed.touchpoints:
        desk.ring(f"mailbox {touchpoint}")
    if desk.current().rules.spam.lessons_at:
        desk.ring(lessons.BELL)
    return {
        "messages": [show_id(message) for message in reviewed.messages],
        "conversations": [show_id(conversation) for conversation in reviewed.conversations],
        "queues": list(reviewed.queues),
    }


# --- outbox ----------------------------------------------------------------------------------------------------------


async def _outbox_list(desk: Desk, args: Args) -> Any:
    stopped = stopped_in(desk.current())
    return await desk.store.read(outbox.list_outbox, bool(args.get("all")), args.get("limit"), stopped)


async def _outbox_show(desk: Desk, args: Args) -> Any:
    found = await desk.store.read(outbox.show_outbox, id_of(args["id"], "outbox"), stopped_in(desk.current()))
    if found is None:
        raise CommandError(f"no outbound message {args['id']}; `mail-gateway outbox list --all` shows them")
    return found


async def _outbox_retry(desk: Desk, args: Args) -> Any:
    asking = await _asking(desk, args)
    retried = await desk.store.submit(outbox.retry, asking)
    _ring(desk, retried)
    if asking.id is not None:
        found = await _outbox_show(desk, args)
        if found["held"]:
            raise CommandError(
                f"{args['id']} is held ({found['cause']}); it is tried after: mail-gateway outbox release {found['id']}"
            )
        if any(one["state"] == "held" and one["next_attempt_at"] is None for one in found["recipients"]):
            raise CommandError(
                f"{args['id']}: not the message is held, but all of {found['touchpoint']}: {found['cause']}"
            )
    if asking.id is not None and not retried.recipients:
        raise CommandError(
            f"{args['id']}: no recipient waits for another attempt; `mail-gateway outbox show` tells why"
        )
    return retried.recipients


async def _outbox_hold(desk: Desk, args: Args) -> Any:
    asking = await _asking(desk, args)
    held = await desk.store.submit(outbox.hold, asking)
    if asking.id is not None and not held.recipients:
        found = await _outbox_show(desk, args)
        is_held = f"{args['id']} is held already ({found['cause']})" if found["held"] else None
        raise CommandError(is_held or _nothing(args, held, "waits"))
    return _asked(desk, args, "hold", held)


async def _outbox_release(desk: Desk, args: Args) -> Any:
    asking = await _asking(desk, args)
    released = await desk.store.submit(outbox.release, asking)
    if asking.id is not None and not released.touchpoints:
        found = await _outbox_show(desk, args)
        if any(recipient["state"] == "held" for recipient in found["recipients"]):
            raise CommandError(
                f"{args['id']}: not the message is held, but all of {found['touchpoint']}: {found['cause']}"
            )
        raise CommandError(f"{args['id']} is not held")
    return _asked(desk, args, "release", released)


async def _outbox_cancel(desk: Desk, args: Args) -> Any:
    asking = await _asking(desk, args)
    cancelled = await desk.store.submit(outbox.cancel, asking)
    if asking.id is not None and not cancelled.recipients:
        await _outbox_show(desk, args)
        raise CommandError(_nothing(args, cancelled, "waits"))
    return _asked(desk, args, "cancel", cancelled)


async def _outbox_settle(desk: Desk, args: Args) -> Any:
    number, address = id_of(args["id"], "outbox"), args.get("recipient")
    settle = outbox.Settle(number, bool(args["delivered"]), address, to_ms(datetime.now(UTC)))
    settled = await desk.store.submit(outbox.settle, settle)
    if not settled.recipients:
        found = await _outbox_show(desk, args)
        known = [recipient["address"] for recipient in found["recipients"]]
        if address is not None and address.lower() not in map(str.lower, known):
            raise CommandError(f"{args['id']} does not go to {address}{instead(address, known)}", 2)
        raise CommandError(_nothing(args, settled, "is uncertain"))
    return _asked(desk, args, "settle", settled)


async def _asking(desk: Desk, args: Args) -> outbox.Ask:
    touchpoint = await _find_lane(desk, args["touchpoint"]) if args.get("touchpoint") is not None else None
    number = id_of(args["id"], "outbox") if args.get("id") else None
    return outbox.Ask(to_ms(datetime.now(UTC)), number, touchpoint)


async def _find_lane(desk: Desk, name: str) -> str:
    """Return the id of a touchpoint: of one that is configured, or of one that is no more and has left mail behind."""
    if name not in desk.current().touchpoints and name in await desk.store.read(outbox.count_open):
        return name
    return find_touchpoint(desk, name).id


def _nothing(args: Args, asked: outbox.Asked, expected: str) -> str:
    if asked.too_late:
        return f"{args['id']}: too late, it is being sent to {', '.join(asked.too_late)}"
    return f"{args['id']}: no recipient {expected}; `mail-gateway outbox show {args['id']}` tells what became of it"


def _asked(desk: Desk, args: Args, action: str, asked: outbox.Asked) -> dict[str, Any]:
    """Tell the log what a person did, and wake those whom it concerns."""
    if desk.health is not None:  # the log is the daemon's
        said = {key: args[key] for key in ("touchpoint", "recipient", "delivered") if args.get(key) is not None}
        id = show_id(id_of(args["id"], "outbox")) if args.get("id") else None
        events.say(f"outbox-{action}", queue_id=id, **said, recipients=asked.recipients)
    _ring(desk, asked)
    return {"recipients": asked.recipients, "too_late": list(asked.too_late)}


def _ring(desk: Desk, asked: outbox.Asked) -> None:
    for touchpoint in asked.touchpoints:
        desk.ring(touchpoint)


# --- agents ----------------------------------------------------------------------------------------------------------


async def _agent_list(desk: Desk, args: Args) -> Any:
    stored = await desk.store.read(agents.agent_facts)
    return [_agent(desk.current(), agent, stored.get(login)) for login, agent in desk.current().agents.items()]


async def _agent_show(desk: Desk, args: Args) -> Any:
    agent = _find_agent(desk, args["login"])
    stored = await desk.store.read(agents.agent_facts)
    return _agent(desk.current(), agent, stored.get(agent.login.lower()))


def _find_agent(desk: Desk, login: str) -> Agent:
    agent = desk.current().agents.get(login.lower())
    if agent is None:
        raise CommandError(f'unknown agent "{login}"{instead(login, desk.current().agents)}', 2)
    return agent


def _agent(current: Config, agent: Agent, stored: agents.AgentFacts | None) -> dict[str, Any]:
    return {
        "login": agent.login,
        "name": agent.name,
        "email": agent.email or agent.login,
        "role": agent.role,
        "active": agent.active,
        "has_password": bool(agent.password_hash or (stored and stored.has_stored_password)),
        "may_write_as": [touchpoint.address for touchpoint in current.may_write_as(agent)],
        "sees": [
            *(queue for queue in sorted(current.queue_names) if queue in agent.ring_groups),
            personal_queue(agent.login.lower()),
            *([UNROUTED] if agent.role == "admin" else []),
        ],
        "previews": [
            touchpoint.address for touchpoint in current.touchpoints.values() if agent.role in touchpoint.preview_roles
        ],
        "last_login_at": rfc3339(stored.last_login_at) if stored else None,
        "failures": stored.failures if stored else 0,
    }


async def _agent_passwd(desk: Desk, args: Args) -> Any:
    agent = _find_agent(desk, args["login"])
    if agent.password_hash:
        raise CommandError(
            f"{agent.login}: password_hash stands in rules.toml and what the file says wins; "
            "change it there, or take it out of the file and use passwd"
        )
    if args.get("hash") is None:
        return None  # asked beforehand, whether it would be taken
    await desk.store.submit(agents.set_password, agents.NewPassword(agent.login.lower(), args["hash"]))
    desk.forget_logins(agent.login)
    return None


# --- backup ----------------------------------------------------------------------------------------------------------


async def _backup(desk: Desk, args: Args) -> Any:
    done = await recovery.back_up(desk.store, desk.current(), Path(args["file"]))
    if desk.health is not None:  # the daemon's log; a command says it on the terminal
        events.say("backed-up", file=done["file"], size=done["size"])
    return done


# --- the daemon ------------------------------------------------------------------------------------------------------


async def _reload(desk: Desk, args: Args) -> Any:
    assert desk.reload is not None
    try:
        changes = await desk.reload(str(args.get("by") or "reload"))
    except ConfigError as error:
        return {"refused": True, "lines": ["refused, nothing was changed:", *map(str, error.problems)]}
    warnings = [str(problem) for problem in desk.current().problems]
    lines = changes.lines()
    return {"refused": False, "lines": [*(lines or ["nothing changed"]), *warnings], "changes": lines}


async def _reconcile(desk: Desk, args: Args) -> Any:
    """Compare what lies at the provider with what we have, folder by folder, and fetch what is missing."""
    assert desk.reconcile is not None
    touchpoint = find_touchpoint(desk, args["touchpoint"]) if args.get("touchpoint") is not None else None
    if touchpoint is not None and not (touchpoint.active and touchpoint.is_inbound):
        why = "it is not active" if touchpoint.is_inbound else "it is outbound only"
        raise CommandError(f"{touchpoint.id} has no folder that is watched: {why}")
    found = await desk.reconcile(touchpoint.id if touchpoint else None)
    return [{key: folder.get(key) for key in RECONCILED} for folder in found]


async def _status(desk: Desk, args: Args) -> Any:
    assert desk.health is not None
    current, health, rulebook = desk.current(), desk.health, desk.rulebook
    outgoing = await desk.store.read(outbox.count_open, stopped_in(current))
    _tell_of_orphans(
        health, {id: sum(counts.values()) for id, counts in outgoing.items() if id not in current.touchpoints}
    )
    _tell_of_doubts(health, await desk.store.read(backup.in_doubt))
    waiting = await desk.store.read(conversations.count_open)
    unsigned = await desk.store.read(outbox.count_unsigned)
    lane_of = await desk.store.read(lanes.look_at_all)
    if UNROUTED in waiting:
        count, _ = waiting[UNROUTED]
        health.alarm(
            None,
            UNROUTED,
            f"{count} conversation{'s lie' if count != 1 else ' lies'} in the queue {UNROUTED}: no rule and no link "
            "named another",
            f"mail-gateway queue list {UNROUTED}; then link the touchpoint to a queue, or add a rule",
        )
    else:
        health.clear(None, UNROUTED)
    if trouble := desk.store.trouble:
        health.alarm(None, "store", trouble, "what was accepted is safe; agents and providers keep what was refused")
    else:
        health.clear(None, "store")
    _tell_of_faults(health)
    return {
        "daemon": {
            "version": version("mail-gateway"),
            "pid": os.getpid(),
            "started_at": rfc3339(desk.started_at),
            "rules": {
                "loaded_at": rfc3339(rulebook.loaded_at),
                "origin": rulebook.origin,
                "error": rulebook.error,
                "changed_on_disk": rulebook.changed_on_disk,
            },
        },
        "touchpoints": [
            _touchpoint_status(touchpoint, health, outgoing.get(touchpoint.id, {}), lane_of.get(touchpoint.id))
            | {"signatures_left_out": unsigned.get(touchpoint.id, 0)}
            for touchpoint in current.touchpoints.values()
        ],
        "queues": [
            {"name": name, "open": count, "oldest_at": rfc3339(oldest_at), "agents": _who_sees(current, name)}
            for name in sorted(current.queue_names | set(waiting))
            for count, oldest_at in [waiting.get(name, (0, None))]
        ],
        "alarms": [
            {
                "id": alarm.id,
                "touchpoint": alarm.touchpoint,
                "since": rfc3339(alarm.since),
                "cause": alarm.cause,
                "action": alarm.action,
            }
            for alarm in health.alarms()
        ],
    }


def _tell_of_orphans(health: Health, orphans: Mapping[str, int]) -> None:
    """Mail that was accepted for a touchpoint that the file has no more is in no line of `status` but this one."""
    for alarm in list(health.alarms()):
        if alarm.key == _ORPHANED and alarm.touchpoint not in orphans:
            health.clear(alarm.touchpoint, _ORPHANED)
    for id, count in orphans.items():
        health.alarm(
            id,
            _ORPHANED,
            f"{count} recipient{'s' * (count != 1)} in the outbox belong to a touchpoint that rules.toml has no more",
            f'put the touchpoint with id "{id}" back, active, until they have left; then: mail-gateway reload',
        )


def _tell_of_doubts(health: Health, doubts: Mapping[str, int]) -> None:
    """What is held since an old copy of the store was restored waits for a person, unless Sent has evidence."""
    for alarm in list(health.alarms()):
        if alarm.key == _RESTORED and alarm.touchpoint not in doubts:
            health.clear(alarm.touchpoint, _RESTORED)
    for id, count in doubts.items():
        health.alarm(
            id,
            _RESTORED,
            f"{count} message{'s' * (count != 1)} may have been sent since the backup that was restored: held",
            "if the provider keeps copies in Sent they decide; else mail-gateway outbox settle ID --delivered|--resend",
        )


def _tell_of_faults(health: Health) -> None:
    """What went wrong in our own code, for some minutes after it was first shown: the log knows it for longer."""
    known = next((alarm for alarm in health.alarms() if (alarm.touchpoint, alarm.key) == (None, _FAULTS)), None)
    if known is not None and datetime.now(UTC) - known.since > _FAULTS_SHOWN:
        health.clear(None, _FAULTS)
    if new := health.new_faults():
        health.clear(None, _FAULTS)
        health.alarm(
            None,
            _FAULTS,
            f"the gateway has come upon {new} fault{'s' * (new != 1)} of its own",
            "no mail is lost; please report the traceback in the log",
        )


def _who_sees(current: Config, queue: str) -> list[str]:
    return [
        agent.login
        for agent in current.agents.values()
        if agent.active
        and (
            queue in agent.ring_groups
            or queue == personal_queue(agent.login.lower())
            or (queue == UNROUTED and agent.role == "admin")
        )
    ]


def _lag(touchpoint: Touchpoint, known: TouchpointHealth) -> int | None:
    """Return for how long mail may have been lying unseen at the provider; None where we do not look or cannot say."""
    if not touchpoint.is_inbound or known.synced_at is None:
        return None
    return 0 if known.state == "watching" else int((datetime.now(UTC) - known.synced_at).total_seconds())


def _touchpoint_status(
    touchpoint: Touchpoint, health: Health, counts: Mapping[str, int], lane: Lane | None
) -> dict[str, Any]:
    known = health.touchpoint(touchpoint.id) if touchpoint.active else TouchpointHealth(state="inactive")
    lane = lane if touchpoint.active and touchpoint.is_outbound else None
    shut = None if lane is None or lane.is_open else lane.detail or lane.cause
    return {
        "id": touchpoint.id,
        "address": touchpoint.address,
        "name": touchpoint.name,
        "active": touchpoint.active,
        "connected": known.connected,
        "state": known.state,
        "cause": known.cause or shut,
        "since": rfc3339(known.since),
        "consent_at": None,
        "direction": touchpoint.direction,
        "last_message_at": rfc3339(known.last_message_at),
        "last_server_byte_at": rfc3339(known.heard_at),
        "lag_seconds": _lag(touchpoint, known),
        "lane": (lane.state.value if lane else "open") if touchpoint.active and touchpoint.is_outbound else None,
        "unfetched": known.unfetched,
        "queued": counts.get("queued", 0) + counts.get("sending", 0),
        "deferred": counts.get("deferred", 0),
        "held": counts.get("held", 0),
        "uncertain": counts.get("uncertain", 0),
        "folders": [{"name": name, "role": role.value} for name, role in known.folders.items()],
    }
