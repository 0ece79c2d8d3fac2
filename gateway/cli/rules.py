"""`rules diff | history | show | restore`: what other rules would do, and the good versions so far."""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from gateway.cli import arguments, client, show
from gateway.cli.reading import harmless
from gateway.errors import CommandError
from gateway.rules.chain import ANSWERING
from gateway.text import clean

if TYPE_CHECKING:
    from gateway.cli.judging import Judge
    from gateway.config.restoring import Restored
    from gateway.rules.explaining import Outcome

_LINE: Final = 1000


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("rules", help="what other rules would do, and the good versions so far").add_subparsers(
        metavar="ACTION", required=True
    )
    differing = group.add_parser(
        "diff", parents=[config], help="which stored mail would go elsewhere with another rules.toml; changes nothing"
    )
    differing.add_argument("file", type=Path, metavar="NEW.toml", help="the rules to compare with those in force")
    arguments.add_since(differing, "mail that came in this time; default 7d", "7d")
    differing.add_argument("--all", action="store_true", help="also where only tags, priority or auto-reply differ")
    arguments.add_json(differing)
    differing.set_defaults(run=diff)
    listing = group.add_parser("history", parents=[config], help="every good version that was in force")
    arguments.add_limit(listing)
    arguments.add_json(listing)
    listing.set_defaults(run=history)
    showing = group.add_parser("show", parents=[config], help="rules.toml as it was in one version")
    showing.add_argument("number", type=arguments.one_or_more, metavar="N", help="as in `rules history`")
    form = showing.add_mutually_exclusive_group()
    form.add_argument("--diff", action="store_true", help="what differs from the rules in force, in every file")
    form.add_argument("--file", type=Path, metavar="PATH", help="another file of that version")
    arguments.add_json(showing)
    showing.set_defaults(run=show_)
    restoring = group.add_parser("restore", parents=[config], help="write the files of a version back, and reload")
    restoring.add_argument("number", type=arguments.one_or_more, metavar="N", help="as in `rules history`")
    arguments.add_json(restoring)
    restoring.set_defaults(run=restore)


# --- what other rules would do ---------------------------------------------------------------------------------------


def diff(options: argparse.Namespace) -> int:
    from gateway import config
    from gateway.cli import judging  # slow to import

    new = judging.Judge.of(config.load_rules(options.file.absolute(), options.config))
    found: list[dict[str, Any]] = []
    counts = {"judged": 0, "elsewhere": 0, "otherwise": 0, "gone": 0}
    with client.asking(options.config) as ask:
        old = judging.Judge.of(judging.rules_in_force(ask, options.config))
        for difference in _differences(ask, old, new, options.since, counts):
            if options.all or difference["moves"]:
                found.append(difference)
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("ID", "CAME", "TOUCHPOINT", "FROM", "SUBJECT", "WOULD GO FROM", "TO", "BECAUSE OF"),
        (
            (
                *(d["id"], show.ago(d["at"]), d["touchpoint"], d["from"], d["subject"]),
                *(_said(d, "old"), _said(d, "new"), d["because"]),
            )
            for d in found
        ),
    )
    print(_summary(counts, options.all), file=sys.stderr)
    return 0


def _differences(
    ask: client.Ask, old: Judge, new: Judge, since: int, counts: dict[str, int]
) -> Iterator[dict[str, Any]]:
    """Yield the stored messages that the two see differently; `counts` counts all that were looked at."""
    from gateway.cli import judging
    from gateway.rules.explaining import deciding, outcome_of, same_place
    from gateway.state.blocks import Blocks

    blocks = Blocks([tuple(one) for one in ask("judged.blocks")])
    after = None
    while page := ask("judged.page", after=after, since=since):
        after = page[-1]["id"]
        for found in page:
            needs = old.chain.needs(found["touchpoint"]) | new.chain.needs(found["touchpoint"])
            case = judging.stored(ask, found, blocks, needs)
            if case is None:
                counts["gone"] += 1
                continue
            counts["judged"] += 1
            was, would = old.judge(case), new.judge(case)
            there, then = outcome_of(was, case.existing), outcome_of(would, case.existing)
            moves = not same_place(there, then)
            if not moves and _beside(there) == _beside(then):
                continue
            counts["elsewhere" if moves else "otherwise"] += 1
            yield {
                **{key: found[key] for key in ("id", "touchpoint", "at", "from", "subject")},
                "moves": moves,
                "old": _outcome(there),
                "new": _outcome(then),
                "because": deciding(would.trail, would),
            }


def _beside(outcome: Outcome) -> tuple[object, ...]:
    return set(outcome.tags), outcome.priority, outcome.auto_reply


def _outcome(outcome: Outcome) -> dict[str, Any]:
    return {
        "place": outcome.place,
        "class": outcome.message_class.value,
        "queues": list(outcome.queues),
        "quarantine": outcome.quarantine,
        "discard": outcome.discard,
        "tags": list(outcome.tags),
        "priority": outcome.priority,
        "auto_reply": outcome.auto_reply,
    }


def _said(difference: Mapping[str, Any], side: str) -> str:
    """Return the place, or what else differs where that is all."""
    mine, other = difference[side], difference["new" if side == "old" else "old"]
    if difference["moves"]:
        return str(mine["place"])
    parts = [f"tags {', '.join(mine['tags']) or '-'}"] if mine["tags"] != other["tags"] else []
    parts += [f"priority {mine['priority']}"] if mine["priority"] != other["priority"] else []
    parts += [ANSWERING[mine["auto_reply"]]] if mine["auto_reply"] != other["auto_reply"] else []
    return ", ".join(parts)


def _summary(counts: Mapping[str, int], is_all: bool) -> str:
    said = f"{counts['judged']} looked at, {counts['elsewhere']} would go elsewhere"
    if counts["otherwise"]:
        hint = "" if is_all else " (--all shows them)"
        said += f", {counts['otherwise']} only with other tags, priority or auto-reply{hint}"
    if counts["gone"]:
        said += f"; the bytes of {counts['gone']} are no longer kept"
    return said


# --- versions --------------------------------------------------------------------------------------------------------


def history(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "rules.history", limit=options.limit)
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("N", "AT", "IN FORCE", "BY", "FILES", "WHAT CHANGED"),
        (
            (
                *(v["number"], v["at"], "yes" if v["in_force"] else "", v["by"], len(v["files"])),
                _few(v["changes"]),
            )
            for v in found
        ),
    )
    if not found:
        print("no version is kept yet; the daemon keeps each good one that it loads", file=sys.stderr)
    return 0


def _few(changes: list[str]) -> str:
    more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
    return "; ".join(changes[:3]) + more


def show_(options: argparse.Namespace) -> int:
    with client.asking(options.config) as ask:
        found = ask("rules.version", number=options.number)
        current = ask("rules.current") if options.diff else None
    from gateway.cli.judging import contents_of

    contents = contents_of(found["content"])
    if options.json:
        found["content"] = {str(path): content.decode(errors="replace") for path, content in contents.items()}
        if current is not None:
            found["diff"] = "".join(_unified(contents, contents_of(current["files"]), found["number"]))
        show.as_json(found)
        return 0
    if current is not None:
        lines = list(_unified(contents, contents_of(current["files"]), found["number"]))
        _print("".join(lines).encode())
        if not lines:
            print(f"version {found['number']} is what is in force", file=sys.stderr)
        return 0
    path = Path(found["rules"]) if options.file is None else _named(options.file, contents)
    _print(contents[path])
    if options.file is None and len(contents) > 1:
        others = ", ".join(str(each) for each in contents if each != path)
        print(f"also of this version: {clean(others, _LINE)}; --file PATH shows one", file=sys.stderr)
    return 0


def _named(wanted: Path, contents: Mapping[Path, bytes]) -> Path:
    found = [path for path in contents if path == wanted.absolute() or path.name == str(wanted)]
    if len(found) != 1:
        raise CommandError(f"that version has no file {wanted}; it has: {', '.join(map(str, contents))}", 2)
    return found[0]


def _unified(then: Mapping[Path, bytes], now: Mapping[Path, bytes], number: int) -> Iterator[str]:
    """Yield what has changed from a version to the rules in force, file by file."""
    for path in sorted({*then, *now}):
        before, after = (side.get(path, b"").decode(errors="replace").splitlines(True) for side in (then, now))
        for line in difflib.unified_diff(before, after, f"{path} (version {number})", f"{path} (in force)"):
            yield line if line.endswith("\n") else f"{line}\n"


def _print(content: bytes) -> None:
    if sys.stdout.isatty():
        print(harmless(content.decode(errors="replace").replace("\r\n", "\n")), end="")
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(content)


# --- bringing one back -----------------------------------------------------------------------------------------------


def restore(options: argparse.Namespace) -> int:
    from gateway.cli.judging import contents_of
    from gateway.config import restoring

    with client.asking(options.config) as ask:
        found = ask("rules.version", number=options.number)
        known = {file["sha256"] for version in ask("rules.history") for file in version["files"]}
    suffix = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    done = restoring.restore(options.config, Path(found["rules"]), contents_of(found["content"]), known, suffix)
    lines = _reload(options, done) if done.written else []
    if options.json:
        show.as_json(
            {
                "written": [str(path) for path in done.written],
                "aside": [str(path) for path in done.aside],
                "lines": lines,
            }
        )
        return 0
    for path in done.written:
        print(f"{path}: as in version {options.number}")
    for path in done.aside:
        print(f"{path}: what stood there and is in no version", file=sys.stderr)
    if not done.written:
        print(f"the files are as in version {options.number} already; nothing was written", file=sys.stderr)
    for line in lines:
        print(clean(line, _LINE))
    return 0


def _reload(options: argparse.Namespace, done: Restored) -> list[str]:
    """Have the daemon load what was written; return what it says. What it refuses is taken back."""
    from gateway.config import restoring

    by = f"rules restore {options.number} by {client.who()}"
    try:
        answer = client.ask(options.config, "reload", must_run=True, by=by)
    except CommandError as error:
        if error.exit_code != client.NOT_RUNNING:
            raise
        return ["the daemon is not running; it loads this at its next start"]
    if answer["refused"]:
        restoring.take_back(done)
        raise CommandError("\n".join(answer["lines"]) + "\nthe daemon refuses it; the files are as they were before")
    return [str(line) for line in answer["lines"]]
