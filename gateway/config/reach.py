"""Warnings about what mail can reach and whom: nothing here stops the mail, but somebody may wait for it in vain."""

from __future__ import annotations

from collections.abc import Iterator

from gateway.config import hours as clock
from gateway.config.document import Document
from gateway.config.draft import Draft
from gateway.config.positions import Path
from gateway.config.rules_file import Agent, Touchpoint
from gateway.config.values import suggest
from gateway.errors import Problem, Severity
from gateway.model import UNROUTED

ADMIN = "admin"  # the role that sees what nothing has placed

_NO_TOUCHPOINT = """no touchpoint yet, so no mail moves; add one and reload:
  [[touchpoint]]
  address = "support@example.com"
  name = "Example Support"
  active = true
  imap = "imaps://imap.example.com"
  smtp = "smtps://smtp.example.com"
  password = "file:secrets/support"
  linked_queues = ["support"]"""


def named_queues(draft: Draft) -> Iterator[tuple[str, Path]]:
    """Yield every queue that rules.toml names, and where."""
    yield from fed_queues(draft)
    for agent in draft.agents:
        if agent.model is not None:
            for index, name in enumerate(agent.model.ring_groups):
                yield name, (*agent.path, "ring_groups", index)


def fed_queues(draft: Draft) -> Iterator[tuple[str, Path]]:
    """Yield every queue that mail can reach, and what sends it there."""
    for touchpoint in draft.touchpoints:
        if touchpoint.model is not None and touchpoint.model.is_inbound:
            for index, name in enumerate(touchpoint.model.linked_queues):
                yield name, (*touchpoint.path, "linked_queues", index)
    for rule in draft.rules:
        if rule.model is not None:
            for index, name in enumerate(rule.model.action.queue):
                if name != "linked":
                    yield name, (*rule.path, "then", "queue", index)


def find_problems(draft: Draft, document: Document) -> Iterator[Problem]:
    if not draft.touchpoints and "touchpoint" not in document.data:
        yield Problem(document.path, None, _NO_TOUCHPOINT, Severity.NOTICE)
    yield from _check_sight(draft, document)
    yield from _check_names(draft)
    yield from _check_writers(draft, document)
    yield from _check_roles(draft, document)
    yield from _check_answers(draft, document)
    yield from _check_rules(draft, document)
    yield from _show_hours(draft, document)


def _check_sight(draft: Draft, document: Document) -> Iterator[Problem]:
    if any(agent.model is None for agent in draft.agents):
        return  # what the one that is wrong sees is not known
    agents = [agent.model for agent in draft.agents if agent.model is not None and agent.model.active]
    seen = {name for agent in agents for name in agent.ring_groups}
    dead = {draft.rules[index].path for index in _never_looked_at(draft, document)}
    fed: dict[str, Path] = {}
    for name, path in fed_queues(draft):
        if path[:2] not in dead:
            fed.setdefault(name, path)
    for name, path in fed.items():
        if name == UNROUTED and name not in seen and all(agent.role != ADMIN for agent in agents):
            yield document.problem(
                path,
                f'mail can reach queue "{UNROUTED}", which role "{ADMIN}" sees, and no active agent has that role',
                Severity.WARNING,
            )
        elif name not in seen and name != UNROUTED:
            hint = suggest(name, seen)
            hint = hint if "did you mean" in hint else "; add it to an agent's ring_groups"
            yield document.problem(path, f'mail can reach queue "{name}", but no agent sees it{hint}', Severity.WARNING)
    told = set()
    for entry in draft.agents:
        for index, name in enumerate(entry.model.ring_groups if entry.model else ()):
            if name not in fed and name not in told and name != UNROUTED:
                told.add(name)
                hint = suggest(name, fed)
                hint = hint if "did you mean" in hint else "; link it to a touchpoint or name it in a rule"
                yield document.problem(
                    (*entry.path, "ring_groups", index), f'nothing feeds ring group "{name}"{hint}', Severity.WARNING
                )


def _check_names(draft: Draft) -> Iterator[Problem]:
    """A queue that [queues] promises and nothing uses is most likely one that was renamed, or is yet to come."""
    used = {name for name, _ in named_queues(draft)}
    if draft.gateway_document is None or draft.files.is_copy:
        return
    for index, name in enumerate(draft.gateway.queues.names or ()):
        if name not in used and name != UNROUTED:
            yield draft.gateway_document.problem(
                ("queues", "names", index), f'nothing feeds queue "{name}", and no agent sees it', Severity.WARNING
            )


def may_write_as(draft: Draft, agent: Agent, touchpoint: Touchpoint) -> bool:
    if agent.touchpoints is not None:
        return touchpoint.id in {draft.id_of(name) for name in agent.touchpoints}
    return _sees(agent, touchpoint)


def _sees(agent: Agent, touchpoint: Touchpoint) -> bool:
    return not set(agent.ring_groups).isdisjoint(touchpoint.linked_queues)


def _check_writers(draft: Draft, document: Document) -> Iterator[Problem]:
    agents = [agent.model for agent in draft.agents if agent.model is not None and agent.model.active]
    complete = all(agent.model is not None and "touchpoints" not in agent.wrong for agent in draft.agents)
    for entry in draft.touchpoints:
        touchpoint = entry.model
        if touchpoint is None or not touchpoint.is_outbound or not complete:
            continue
        if not any(may_write_as(draft, agent, touchpoint) for agent in agents):
            yield document.problem(
                entry.path,
                f'nobody may write as touchpoint "{touchpoint.id}": no active agent names it in touchpoints'
                ' or has one of its linked queues among ring_groups; if so wanted, set direction = "inbound"',
                Severity.WARNING,
            )
        elif touchpoint.is_inbound and not any(
            may_write_as(draft, agent, touchpoint) for agent in agents if _sees(agent, touchpoint)
        ):
            seers = [f'"{agent.login}"' for agent in agents if _sees(agent, touchpoint)]
            if seers:
                yield document.problem(
                    (*entry.path, "linked_queues"),
                    f'nobody who sees the queues of touchpoint "{touchpoint.id}" may answer as it:'
                    f" add it to the touchpoints of {seers[0]}",
                    Severity.WARNING,
                )
    inbound_only = {each.model.id for each in draft.touchpoints if each.model and not each.model.is_outbound}
    for agent in draft.agents:
        for index, name in enumerate((agent.model.touchpoints if agent.model else None) or ()):
            if draft.id_of(name) in inbound_only:
                yield document.problem(
                    (*agent.path, "touchpoints", index),
                    f'touchpoint "{name}" only receives, so nobody can write as it',
                    Severity.WARNING,
                )


def _check_roles(draft: Draft, document: Document) -> Iterator[Problem]:
    if any(agent.model is None for agent in draft.agents):
        return
    roles = {agent.model.role for agent in draft.agents if agent.model is not None and agent.model.active}
    for entry in draft.touchpoints:
        for index, role in enumerate(entry.model.preview_roles if entry.model else ()):
            if role not in roles:
                hint = suggest(role, roles)
                yield document.problem(
                    (*entry.path, "preview_roles", index), f'no agent has role "{role}"{hint}', Severity.WARNING
                )


def _check_answers(draft: Draft, document: Document) -> Iterator[Problem]:
    for entry in draft.touchpoints:
        touchpoint = entry.model
        reply = touchpoint.auto_reply if touchpoint else None
        if touchpoint is None or reply is None or not reply.active or touchpoint.direction == "both":
            continue
        only = (
            "sends, so there is nothing to answer" if touchpoint.is_outbound else "receives, so nothing can be answered"
        )
        yield document.problem(
            (*entry.path, "auto_reply"),
            f'the automatic reply of touchpoint "{touchpoint.id}" is active, but the touchpoint only {only}',
            Severity.WARNING,
        )


def _check_rules(draft: Draft, document: Document) -> Iterator[Problem]:
    for index, reason in _never_looked_at(draft, document).items():
        entry = draft.rules[index]
        name = entry.model.name if entry.model else ""
        yield document.problem(entry.path, f'rule "{name}" is never looked at: {reason}', Severity.WARNING)
    for entry in draft.rules:
        rule = entry.model
        if rule is not None and not rule.action.model_fields_set and not rule.stop and not entry.wrong:
            yield document.problem(
                entry.path, f'rule "{rule.name}" does nothing; give it then = {{ … }} or stop = true', Severity.WARNING
            )


def _never_looked_at(draft: Draft, document: Document) -> dict[int, str]:
    """Return why no mail comes to a rule, by its position: every touchpoint that it is for only sends, or has all its
    mail stopped by rules before it. What cannot be known while something is wrong is left out.
    """
    if any(entry.model is None for entry in draft.touchpoints):
        return {}
    everywhere = {entry.model.id for entry in draft.touchpoints if entry.model and entry.model.is_inbound}
    stopped: dict[str, Path] = {}
    last: Path | None = None
    found = {}
    for index, entry in enumerate(draft.rules):
        rule = entry.model
        if rule is None or "touchpoints" in entry.wrong:
            continue
        named = [draft.id_of(name) for name in rule.touchpoints or ()]
        if None in named:
            continue  # an unknown name is said elsewhere
        scope = everywhere if rule.touchpoints is None else everywhere.intersection(map(str, named))
        if last is not None:
            found[index] = f"the rule of line {document.line(last)} stops all mail"
        elif rule.touchpoints is not None and not scope:
            found[index] = f"{'its touchpoint only sends' if len(named) == 1 else 'its touchpoints only send'}"
        elif scope and scope <= stopped.keys():
            lines = sorted({document.line(stopped[id]) or 0 for id in scope})
            shown = " and ".join(map(str, lines))
            found[index] = (
                f"the rule of line {shown} stops all mail of its touchpoints"
                if len(lines) == 1
                else f"the rules of lines {shown} stop all mail of its touchpoints"
            )
        elif rule.stop and not rule.condition.conditions and not entry.wrong:
            if rule.touchpoints is None:
                last = entry.path
            for id in scope:
                stopped.setdefault(id, entry.path)
    return found


def _show_hours(draft: Draft, document: Document) -> Iterator[Problem]:
    for name, entry in draft.hours.items():
        hours = entry.model
        if hours is None or entry.wrong:
            continue
        if not hours.open:
            yield document.problem(entry.path, f'hours "{name}" are never open; add open = ["…"]', Severity.WARNING)
            continue
        timezone = hours.timezone or draft.gateway.timezone
        week = clock.show_week(hours.open, hours.holidays, draft.now.astimezone(timezone).date())
        yield document.problem(entry.path, f'hours "{name}" ({timezone.key}): {week}', Severity.NOTICE)
