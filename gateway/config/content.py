"""Signatures and replies: templates that can be filled for everybody, images that can be sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path as FilePath

from gateway.config import templates
from gateway.config.document import Document
from gateway.config.draft import Draft, Entry
from gateway.config.positions import Path
from gateway.config.reach import may_write_as
from gateway.config.rules_file import Agent, Touchpoint, image_directory
from gateway.config.templates import TemplateProblem, Use, find_uses
from gateway.config.values import suggest
from gateway.errors import Problem, Severity
from gateway.markup.files import file_pictures
from gateway.markup.removal import FILLED, find_removals, unfilled

_Known = Mapping[str, frozenset[str] | None]


@dataclass(frozen=True)
class _Text:
    """A template where it is used. `shown`: how the admin knows it. `agents`: who may cause it to be filled."""

    source: str
    path: Path
    shown: str
    known: _Known
    agents: tuple[Agent, ...] = ()
    supplied: frozenset[str] = frozenset()  # variables that need no agent
    keeps_comments: bool = True  # Outlook's


def find_problems(draft: Draft, document: Document) -> Iterator[Problem]:
    for entry in draft.touchpoints:
        if entry.model is not None:
            yield from _check_complete(document, entry, entry.model)
    for text in _texts(draft):
        yield from _check_template(document, text)
        if text.path[-1] == "html":
            yield from _check_images(draft, document, text)
            yield from _check_removals(document, text)


def _check_complete(document: Document, entry: Entry[Touchpoint], touchpoint: Touchpoint) -> Iterator[Problem]:
    signature, reply = touchpoint.signature, touchpoint.auto_reply
    if signature is not None and signature.active and not (signature.html.strip() or signature.text.strip()):
        yield document.problem(
            (*entry.path, "signature"),
            f'the signature of touchpoint "{touchpoint.id}" is active and empty; add html = "file:…" or text = "…"',
        )
    if reply is not None and reply.active:
        if not (reply.html.strip() or reply.text.strip()):
            yield document.problem(
                (*entry.path, "auto_reply"),
                f'the automatic reply of touchpoint "{touchpoint.id}" is active and empty; add html or text',
            )
        if not reply.subject.strip():
            yield document.problem(
                (*entry.path, "auto_reply"),
                f'the automatic reply of touchpoint "{touchpoint.id}" has no subject;'
                ' add subject = "Auto: {{ subject }}"',
            )


def _texts(draft: Draft) -> Iterator[_Text]:
    active = tuple(each.model for each in draft.agents if each.model is not None and each.model.active)
    writers: dict[str, tuple[Agent, ...]] = {}
    supplied: dict[str, frozenset[str]] = {}
    for entry in draft.touchpoints:
        touchpoint = entry.model
        if touchpoint is None:
            continue
        own = writers[touchpoint.id] = tuple(agent for agent in active if may_write_as(draft, agent, touchpoint))
        given = supplied[touchpoint.id] = frozenset(touchpoint.variables)
        of = f'of touchpoint "{touchpoint.id}"'
        if "{{" in touchpoint.from_name:
            known = _with_variables(templates.COMMON, given)
            yield _Text(touchpoint.from_name, (*entry.path, "from_name"), f"from_name {of}", known, own, given)
        if (signature := touchpoint.signature) is not None:
            for key in ("html", "text"):
                path = (*entry.path, "signature", key)
                known = _with_variables(templates.SIGNATURE, given)
                keeps = signature.conditional_comments
                yield _Text(getattr(signature, key), path, f"signature {of}", known, own, given, keeps)
        if (reply := touchpoint.auto_reply) is not None:
            for key in ("subject", "html", "text"):
                path = (*entry.path, "auto_reply", key)
                known = _with_variables(templates.AUTO_REPLY, given) | {"agent": frozenset()}
                keeps = reply.conditional_comments
                yield _Text(getattr(reply, key), path, f"automatic reply {of}", known, (), given, keeps)
    for template in draft.templates:
        if (model := template.model) is None:
            continue
        ids = [draft.id_of(name) for name in model.touchpoints] if model.touchpoints is not None else [*writers]
        agents = {agent.login: agent for id_ in ids for agent in writers.get(id_ or "", ())}
        given = frozenset.intersection(*(supplied.get(id_ or "", frozenset()) for id_ in ids)) if ids else frozenset()
        for key in ("html", "text"):
            known = _with_variables(templates.SIGNATURE, given)
            shown = f'template "{model.name}"'
            yield _Text(getattr(model, key), (*template.path, key), shown, known, tuple(agents.values()), given)


def _with_variables(known: _Known, given: frozenset[str]) -> dict[str, frozenset[str] | None]:
    """The variables of the touchpoint are reached through it as well."""
    return {**known, "touchpoint": (known["touchpoint"] or frozenset()) | given}


def _check_template(document: Document, text: _Text) -> Iterator[Problem]:
    try:
        uses = find_uses(text.source)
    except TemplateProblem as problem:
        yield _problem_in(document, text, problem.line, f"{text.shown}: {problem.message}")
        return
    told = set()
    for use in uses:
        message = _why_not(text, use)
        if message is not None and message not in told:
            told.add(message)
            yield _problem_in(document, text, use.line, f"{text.shown}: {message}")


def _why_not(text: _Text, use: Use) -> str | None:
    """Return why `use` cannot be filled every time, or None."""
    shown = use.variable if use.attribute is None else f"{use.variable}.{use.attribute}"
    if use.variable not in text.known:
        return f'unknown variable "{shown}"{suggest(use.variable, text.known)}'
    attributes = text.known[use.variable]
    if use.attribute is None or attributes is None or use.attribute in attributes:
        return None
    if use.variable != "agent":
        return f'unknown variable "{shown}"{suggest(use.attribute, attributes)}'
    if use.safe or use.attribute in text.supplied:
        return None
    remedy = f"or write {{{{ {shown} | default('…') }}}}"
    if not attributes:  # an automatic reply
        return f'"{shown}" cannot be filled, for no agent writes it; give the touchpoint that variable, {remedy}'
    lacking = [agent.login for agent in text.agents if use.attribute not in agent.variables]
    if not lacking:
        return None
    there = {name for agent in text.agents for name in agent.variables} | text.supplied | attributes
    if use.attribute not in there and "did you mean" in (hint := suggest(use.attribute, there)):
        return f'unknown variable "{shown}"{hint}'
    who = ", ".join(f'"{login}"' for login in lacking[:3]) + (f" and {len(lacking) - 3} more" if lacking[3:] else "")
    return f'"{shown}" is missing for agent {who}; add it to the variables of the agent or the touchpoint, {remedy}'


def _check_removals(document: Document, text: _Text) -> Iterator[Problem]:
    """What would not be sent is told when the file is written, not by a customer."""
    for removal in find_removals(unfilled(text.source), conditional_comments=text.keeps_comments):
        message = f"{text.shown}: left out of what is sent: {removal.what.replace(FILLED, '…')}"
        yield replace(_problem_in(document, text, removal.line or 1, message), severity=Severity.WARNING)


def _check_images(draft: Draft, document: Document, text: _Text) -> Iterator[Problem]:
    directory = image_directory(text.source, document.path.absolute().parent)
    for source, line in file_pictures(text.source):
        if FILLED in source:
            message = (
                f"{text.shown}: image file:{source.replace(FILLED, '…')} has a variable in its name; name one file"
            )
            yield _problem_in(document, text, line, message)
            continue
        try:
            draft.files.image(directory / source)
        except ValueError as error:
            yield _problem_in(document, text, line, f"{text.shown}: image {error}")


def _problem_in(document: Document, text: _Text, line: int, message: str) -> Problem:
    """The place is the line in the file that holds the text, which may be rules.toml itself."""
    file = getattr(text.source, "file", None)
    if isinstance(file, FilePath):
        return Problem(file, line, message, Severity.ERROR)
    return document.text_problem(text.path, line, message)
