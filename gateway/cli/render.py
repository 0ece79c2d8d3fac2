"""`render signature | auto-reply`: what a recipient will see, and what the linter says. Works on the files as they are
on the disk, edited or in force; asks nobody and changes nothing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli import arguments, show
from gateway.cli.reading import harmless
from gateway.errors import CommandError, GatewayError
from gateway.text import clean

if TYPE_CHECKING:
    from gateway.config import Agent, Config, Touchpoint
    from gateway.preview.letter import Letter
    from gateway.preview.remarks import Finding

_LARGEST: Final = 64 * 1024 * 1024
_WIDE: Final = 800
_NARROW: Final = 360
_FORMS: Final = (".html", ".htm", ".eml", ".png")
_LINE: Final = 1000


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser(
        "render", help="what a recipient will see: as text, page, message or picture"
    ).add_subparsers(metavar="ACTION", required=True)
    signing = group.add_parser(
        "signature", parents=[config], help="a mail with the touchpoint's signature, and what is to be said about it"
    )
    _add_shared(signing, "the mail that is answered (- for standard input); default: a new mail")
    signing.add_argument(
        "--agent", metavar="A", help="who writes it; default: the first who may write as the touchpoint"
    )
    signing.set_defaults(run=signature)
    answering = group.add_parser(
        "auto-reply", parents=[config], help="the touchpoint's automatic reply, and what is to be said about it"
    )
    _add_shared(answering, "the mail that is answered (- for standard input); default: a sample one")
    answering.set_defaults(run=auto_reply)


def _add_shared(parser: argparse.ArgumentParser, reply_to: str) -> None:
    parser.add_argument("touchpoint", metavar="TOUCHPOINT", help="its id, address or alias")
    parser.add_argument("--reply-to", type=Path, metavar="FILE.eml", help=reply_to)
    parser.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="instead of text: a page (FILE.html), the message (FILE.eml), or a picture (FILE.png)",
    )
    look = parser.add_mutually_exclusive_group()
    look.add_argument("--light", action="store_true", help="of a picture: only as in a light mail client")
    look.add_argument("--dark", action="store_true", help="of a picture: only as in a dark mail client")
    width = parser.add_mutually_exclusive_group()
    width.add_argument("--wide", action="store_true", help=f"of a picture: only {_WIDE} pixels wide")
    width.add_argument("--narrow", action="store_true", help=f"of a picture: only {_NARROW} pixels wide, as on a phone")
    parser.add_argument("--remote", action="store_true", help="of a page or a picture: load pictures from the network")
    parser.add_argument("--browser", metavar="PROGRAM", help="what draws the picture; default: any Chromium")
    arguments.add_json(parser)


# --- what is shown ---------------------------------------------------------------------------------------------------


def signature(options: argparse.Namespace) -> int:
    from gateway import config
    from gateway.mime.scan import Mailbox
    from gateway.outbound.addressing import plain
    from gateway.preview import letter, outgoing, remarks, sample

    _check(options)
    current = config.load(options.config)
    touchpoint = _touchpoint(current, options.touchpoint)
    if touchpoint.signature is None:
        raise CommandError(f"touchpoint {touchpoint.id} has no signature; add [touchpoint.signature] to rules.toml")
    agent, why = _agent(current, touchpoint, options.agent)
    original = None if options.reply_to is None else letter.read(_read(options.reply_to))
    at, address = datetime.now(UTC).astimezone(current.gateway.timezone), plain(touchpoint.address)
    author, message_id = Mailbox(agent.name, address), f"<preview@{current.gateway.hostname}>"
    try:
        if original is None:
            draft = sample.new(author, at=at, message_id=message_id)
        else:
            draft = sample.answer(author, original, at=at, message_id=message_id)
        done = outgoing.signed(draft, touchpoint, agent, address, at)
    except GatewayError as fault:
        raise CommandError(f"the signature of {touchpoint.id}: {_fault(fault)}") from None
    says = [f"{touchpoint.id}: written by {agent.name} <{agent.login}>{why}"]
    if not touchpoint.signature.active:
        says.append("the signature is not active: nobody gets it before active = true")
    added = len(done.raw) - len(done.without)
    if done.is_placed:
        says.append(f"the signature adds {added} octets to this mail")
    else:
        says.append(f"the signature was left out: {done.reason}")
    found = remarks.of_signature(current, touchpoint)
    shown = letter.read(done.raw)
    return _out(
        options,
        done.raw,
        shown,
        found,
        says,
        before=letter.read(done.without).text,
        facts={
            "touchpoint": touchpoint.id,
            "active": touchpoint.signature.active,
            "agent": agent.login,
            "placed": done.is_placed,
            "reason": done.reason,
            "adds": added,
        },
    )


def auto_reply(options: argparse.Namespace) -> int:
    from gateway import config
    from gateway.mime.scan import scan
    from gateway.outbound.addressing import plain
    from gateway.preview import answer, letter, remarks
    from gateway.rules.answering import hours_of

    _check(options)
    current = config.load(options.config)
    touchpoint = _touchpoint(current, options.touchpoint)
    reply = touchpoint.auto_reply
    if reply is None:
        raise CommandError(
            f"touchpoint {touchpoint.id} has no automatic reply; add [touchpoint.auto_reply] to rules.toml"
        )
    at, address = datetime.now(UTC).astimezone(current.gateway.timezone), plain(touchpoint.address)
    addressee, silence = None, ""
    if options.reply_to is None:
        facts = answer.letter_to(touchpoint, address, at=at, message_id=f"<sample@{current.gateway.hostname}>")
    else:
        raw = _read(options.reply_to)
        facts = scan(raw)
        decided = _decided(current, touchpoint, raw)
        addressee, silence = (None, decided) if isinstance(decided, str) else (decided, "")
    try:
        composed = answer.answer(
            facts,
            touchpoint,
            addressee,
            address=address,
            hostname=current.gateway.hostname,
            at=at,
            is_open=hours_of(reply, current.rules.hours, at)[0],
        )
    except GatewayError as fault:
        raise CommandError(f"the automatic reply of {touchpoint.id}: {_fault(fault)}") from None
    says = []
    if not reply.active:
        says.append(f"the automatic reply of {touchpoint.id} is not active: nobody gets it before active = true")
    if silence:
        says.append(f"this mail would get no automatic reply: {silence}")
    shown = letter.read(composed.raw)
    return _out(
        options,
        composed.raw,
        shown,
        remarks.of_auto_reply(current, touchpoint),
        says,
        facts={
            "touchpoint": touchpoint.id,
            "active": reply.active,
            "answered": not silence,
            "reason": silence,
        },
    )


def _decided(current: Config, touchpoint: Touchpoint, raw: bytes) -> Any:
    """Return whom the rules would answer if this came now and the reply were active, or why nobody."""
    from dataclasses import replace

    from gateway.cli import judging
    from gateway.model import Findings

    assert touchpoint.auto_reply is not None
    active = touchpoint.model_copy(
        update={"active": True, "auto_reply": touchpoint.auto_reply.model_copy(update={"active": True})}
    )
    everybody = tuple(active if each.id == touchpoint.id else each for each in current.rules.touchpoints)
    judge = judging.Judge.of(replace(current, rules=current.rules.model_copy(update={"touchpoints": everybody})))
    now = datetime.now(UTC)
    case = judging.message_of(raw, judge, touchpoint.id, Findings(at=now))
    return judging.decide_answer(judge, case, judge.judge(case), now, b"preview")


def _fault(fault: GatewayError) -> str:
    line = getattr(fault, "line", None)
    return f"{fault}" if line is None else f"line {line}: {fault}"


# --- what is asked for -----------------------------------------------------------------------------------------------


def _check(options: argparse.Namespace) -> None:
    """Raise CommandError for a file that we cannot write, before anything takes time."""
    form = _form(options)
    if options.output is not None and form not in _FORMS:
        raise CommandError(f"{options.output}: a file can be .html, .eml or .png, as its name says", 2)
    picture = [name for name in ("light", "dark", "wide", "narrow", "browser") if getattr(options, name)]
    if picture and form != ".png":
        raise CommandError(f"--{picture[0]} is for a picture: add --output FILE.png", 2)
    if options.remote and form not in (".png", ".html", ".htm"):
        raise CommandError("--remote is for a page or a picture: add --output FILE.html or FILE.png", 2)


def _form(options: argparse.Namespace) -> str:
    return "" if options.output is None else options.output.suffix.lower()


def _touchpoint(current: Config, name: str) -> Touchpoint:
    from gateway.config.values import suggest

    touchpoint = current.touchpoints.get(name) or current.touchpoint_at(name)
    if touchpoint is None:
        known = [*current.touchpoints, *(address for each in current.rules.touchpoints for address in each.addresses)]
        hint = suggest(name, known)
        hint = hint if "did you mean" in hint else suggest(name, current.touchpoints)
        raise CommandError(f'unknown touchpoint "{name}"{hint}', 2)
    return touchpoint


def _agent(current: Config, touchpoint: Touchpoint, login: str | None) -> tuple[Agent, str]:
    """Return who writes, and what is to be said about the choice."""
    from gateway.config.values import suggest

    if not touchpoint.is_outbound:
        raise CommandError(f"touchpoint {touchpoint.id} only receives, so that nobody writes as it")
    writers = [agent for agent in current.rules.agents if agent.active and touchpoint in current.may_write_as(agent)]
    names = ", ".join(agent.login for agent in writers)
    if login is None:
        if not writers:
            raise CommandError(f"nobody may write as {touchpoint.id}: no active agent has one of its queues")
        others = len(writers) - 1
        return writers[0], f", the first of {len(writers)} who may; --agent names another" if others else ""
    agent = current.agents.get(login.lower())
    if agent is None:
        raise CommandError(f'unknown agent "{login}"{suggest(login, [each.login for each in current.rules.agents])}', 2)
    if agent not in writers:
        what = "may not write as" if agent.active else "is not active, and so does not write as"
        raise CommandError(f"{agent.login} {what} {touchpoint.id}; who may: {names or 'nobody'}", 2)
    return agent, ""


def _read(path: Path) -> bytes:
    """Return a message. Raises OSError, and CommandError for what is none."""
    from gateway.mime.scan import scan

    with (Path("/dev/stdin") if str(path) == "-" else path).open("rb") as file:
        raw = file.read(_LARGEST + 1)
    if len(raw) > _LARGEST:
        raise CommandError(f"{path} is larger than any message that would be taken")
    if not scan(raw).from_.address:
        raise CommandError(f"{path} is no message: it has no From with an address")
    return raw


# --- what comes out --------------------------------------------------------------------------------------------------


def _out(
    options: argparse.Namespace,
    raw: bytes,
    shown: Letter,
    found: Sequence[Finding],
    says: list[str],
    *,
    facts: dict[str, Any],
    before: str | None = None,
) -> int:
    """Write or print, then tell what is to be told. Return the exit code."""
    form = _form(options)
    if form == ".eml":
        options.output.write_bytes(raw)
    elif form == ".png":
        options.output.write_bytes(_picture(options, shown, says))
    elif form:
        from gateway.preview.page import page

        options.output.write_text(page(shown, remote=options.remote), "utf-8")
    if options.output is not None:
        says.append(f"written: {options.output}")
    if options.json:
        header = {"from": str(shown.facts.from_), "to": list(map(str, shown.facts.to)), "subject": shown.facts.subject}
        output = None if options.output is None else str(options.output)
        listed = [finding.as_json() for finding in found]
        show.as_json([{**facts, **header, "text": shown.text, "size": len(raw), "output": output, "remarks": listed}])
        return _exit_code(found)
    if options.output is None:
        _print(shown, before)
        sys.stdout.flush()
    for line in (*map(str, found), *says):
        print(clean(line, _LINE), file=sys.stderr)
    return _exit_code(found)


def _exit_code(found: Sequence[Finding]) -> int:
    return 1 if any(finding.is_error for finding in found) else 0


def _print(shown: Letter, before: str | None) -> None:
    """Print the mail as a client for text shows it. `before`: its text without what is to be marked with "+"."""
    facts = shown.facts
    print(f"From: {clean(str(facts.from_))}")
    print(f"To: {clean(', '.join(map(str, facts.to)))}")
    print(f"Subject: {clean(facts.subject)}\n")
    lines = harmless(shown.text).rstrip("\n").split("\n")
    if before is None:
        print("\n".join(lines))
    else:
        begin, end = _inserted(harmless(before).rstrip("\n").split("\n"), lines)
        for number, line in enumerate(lines):
            print(f"{'+' if begin <= number < end else ' '} {line}".rstrip())
    if pictures := len(shown.pictures):
        print(f"\n[pictures in the HTML: {pictures}]")
    for name in shown.attached:
        print(f"[attached: {clean(name)}]")


def _inserted(before: list[str], after: list[str]) -> tuple[int, int]:
    """Return from where to where lines of `after` are new; blank lines around them belong to neither."""
    begin = next((n for n, (one, other) in enumerate(zip(before, after, strict=False)) if one != other), len(before))
    tail = 0
    while tail < len(before) - begin and before[-1 - tail] == after[-1 - tail]:
        tail += 1
    end = len(after) - tail
    while begin < end and not after[begin].strip("-"):
        if after[begin].startswith("--"):
            break
        begin += 1
    while end > begin and not after[end - 1].strip():
        end -= 1
    return begin, end


def _picture(options: argparse.Namespace, shown: Letter, says: list[str]) -> bytes:
    from gateway.preview import browser
    from gateway.preview.page import page
    from gateway.preview.sheet import sheet

    looks = [is_dark for is_dark in (False, True) if not (options.light if is_dark else options.dark)]
    widths = [width for width in (_WIDE, _NARROW) if not (options.narrow if width == _WIDE else options.wide)]
    shots = [browser.Shot(width, is_dark) for is_dark in looks for width in widths]
    try:
        browsers = browser.find(options.browser)
        taken = browser.take(page(shown, remote=options.remote), shots, browsers, remote=options.remote)
    except browser.NoPicture as error:
        raise CommandError(str(error)) from None
    if browser.runs_without_sandbox():
        says.append("as root the browser has run without its sandbox; as anybody else it has one")
    for shot, picture in zip(shots, taken, strict=True):
        if picture.needs > shot.width and not shot.is_dark:
            quoted = ", perhaps for what is quoted" if options.reply_to is not None else ""
            says.append(f"on {shot.width} pixels it is cut off: it needs {picture.needs}{quoted}")
    titles = [f"{'dark' if shot.is_dark else 'light'}, {shot.width} pixels" for shot in shots]
    panels = list(zip(titles, (picture.png for picture in taken), strict=True))
    return sheet([panels[start : start + len(widths)] for start in range(0, len(panels), len(widths))])
