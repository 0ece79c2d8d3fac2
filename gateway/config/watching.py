"""Which folder of which mailbox is watched, by whom, and as what: nobody's mail may arrive twice."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from gateway.config.document import Document
from gateway.config.draft import Draft, Entry
from gateway.config.positions import Path
from gateway.config.rules_file import Touchpoint
from gateway.errors import Problem, Severity


class _Mailbox(NamedTuple):
    host: str
    port: int
    login: str


@dataclass(frozen=True, slots=True)
class _Watched:
    """`at`: the touchpoint. `key`: of the touchpoint, that names the folder."""

    at: Path
    key: str
    path: Path


def find_problems(draft: Draft, document: Document) -> Iterator[Problem]:
    """Yield folders that are watched twice, or by two keys that contradict, or that mail would be moved into."""
    taken: dict[tuple[_Mailbox, str], _Watched] = {}
    inbound = [
        (entry, entry.model, _mailbox(entry.model))
        for entry in draft.touchpoints
        if entry.model is not None and entry.model.is_inbound and entry.model.imap is not None
    ]
    for entry, touchpoint, mailbox in inbound:
        for folder, watched in _watched(entry, touchpoint):
            other = taken.setdefault((mailbox, known_as(folder)), watched)
            if other is not watched:
                yield document.problem(watched.path, _say_twice(document, touchpoint, folder, watched, other))
    for entry, touchpoint, mailbox in inbound:
        target = touchpoint.after_fetch.removeprefix("move:")
        watched_already = taken.get((mailbox, known_as(target)))
        if target != touchpoint.after_fetch and watched_already is not None:
            who = "watched" if watched_already.at == entry.path else "watched by another touchpoint"
            yield document.problem(
                (*entry.path, "after_fetch"),
                f'after_fetch would move mail to "{target}", which is {who}, so that it would be found again there;'
                " name another folder",
            )
    yield from _shared_junk(document, inbound)


def known_as(folder: str) -> str:
    """Return the one name of a folder: INBOX alone has it in any case (RFC 9051 §5.1)."""
    return "INBOX" if folder.upper() == "INBOX" else folder


def _mailbox(touchpoint: Touchpoint) -> _Mailbox:
    assert touchpoint.imap is not None
    return _Mailbox(touchpoint.imap.host.lower().rstrip("."), touchpoint.imap.port, touchpoint.imap_login.lower())


def _watched(entry: Entry[Touchpoint], touchpoint: Touchpoint) -> Iterator[tuple[str, _Watched]]:
    for index, folder in enumerate(touchpoint.folders):
        path = (*entry.path, "folders", index) if entry.has("folders") else entry.path
        yield folder, _Watched(entry.path, "folders", path)
    for key, name in (("junk", touchpoint.watch.junk), ("sent", touchpoint.watch.sent)):
        if name:
            yield name, _Watched(entry.path, f"watch.{key}", (*entry.path, "watch", key))


def _say_twice(document: Document, touchpoint: Touchpoint, folder: str, watched: _Watched, other: _Watched) -> str:
    if watched.at == other.at and watched.key != other.key:
        return f'{watched.key} is "{folder}", which {other.key} names as well; a folder is watched as one of them'
    return (
        f'the folder "{folder}" of {touchpoint.imap_login} at {_mailbox(touchpoint).host} is watched already,'
        f" by the touchpoint of line {document.line(other.path)}; its mail would arrive twice"
    )


def _shared_junk(
    document: Document, inbound: list[tuple[Entry[Touchpoint], Touchpoint, _Mailbox]]
) -> Iterator[Problem]:
    """Two touchpoints that each find the Junk of one mailbox find the same one; named ones are compared above."""
    finders: dict[_Mailbox, Path] = {}
    for entry, touchpoint, mailbox in inbound:
        if touchpoint.watch.junk is not None:
            continue
        if mailbox in finders:
            yield document.problem(
                entry.path,
                f'touchpoint "{touchpoint.id}" and that of line {document.line(finders[mailbox])} share the mailbox of'
                f" {touchpoint.imap_login}, so what lies in its Junk is taken into quarantine by both;"
                ' add watch = { junk = "" } to one of them',
                Severity.WARNING,
            )
        finders.setdefault(mailbox, entry.path)
