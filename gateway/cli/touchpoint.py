"""`touchpoint list | show | add | duplicate | remove | activate | deactivate`.

The last five edit rules.toml in place as whoever runs them, and then have the daemon load it.
"""

from __future__ import annotations

import argparse
import sys
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from gateway.cli import arguments, client, show
from gateway.errors import CommandError, ConfigError
from gateway.text import clean

if TYPE_CHECKING:
    from gateway.config.edition import Edition

_LINE: Final = 1000


def add(commands: Any, config: argparse.ArgumentParser) -> None:
    group = commands.add_parser("touchpoint", help="the addresses where customers and agents meet").add_subparsers(
        metavar="ACTION", required=True
    )
    listing = group.add_parser("list", parents=[config], help="every touchpoint, a line each")
    arguments.add_json(listing)
    listing.set_defaults(run=list_)
    showing = group.add_parser("show", parents=[config], help="one touchpoint: every setting, who sees it, what waits")
    showing.add_argument("touchpoint", metavar="TOUCHPOINT", help="its id, address or alias")
    arguments.add_json(showing)
    showing.set_defaults(run=show_)
    _add_add(group.add_parser("add", parents=[config], help="write a new one into rules.toml"))
    _add_duplicate(
        group.add_parser(
            "duplicate",
            parents=[config],
            help="a copy with everything but login, secrets and aliases; it is not active",
        )
    )
    removing = group.add_parser("remove", parents=[config], help="take it out of rules.toml")
    removing.add_argument("touchpoint", metavar="TOUCHPOINT", help="its id, address or alias")
    removing.add_argument("--force", action="store_true", help="also while mail of it is unsettled")
    removing.set_defaults(run=remove)
    for verb, active in (("activate", True), ("deactivate", False)):
        switching = group.add_parser(verb, parents=[config], help=f"active = {str(active).lower()} in rules.toml")
        switching.add_argument("touchpoints", nargs="+", metavar="TOUCHPOINT", help="its id, address or alias")
        switching.set_defaults(run=switch, active=active)


def _add_add(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="where customers write to")
    parser.add_argument("--name", required=True, help="what customers see beside the address")
    parser.add_argument("--id", help="under which its history is kept; default: the address")
    parser.add_argument(
        "--provider", help="microsoft, gmail, yahoo, aol, icloud, fastmail or custom; default: by the address"
    )
    parser.add_argument("--direction", choices=("inbound", "outbound", "both"), help="default: both")
    parser.add_argument("--imap", metavar="URL", help="of a custom one: imaps://HOST")
    parser.add_argument("--smtp", metavar="URL", help="of a custom one: smtps://HOST")
    parser.add_argument("--login", help="default: the address")
    parser.add_argument("--password", metavar="REFERENCE", help="where it is kept: file:PATH, env:NAME …; never itself")
    parser.add_argument(
        "--queue",
        action="append",
        dest="linked_queues",
        help="where its mail goes; may be given many times; default: one with the name before the @",
    )
    parser.add_argument("--active", action="store_true", default=None, help="at once")
    parser.set_defaults(run=add_touchpoint)


def _add_duplicate(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("old", metavar="OLD", help="id, address or alias of the one to copy")
    parser.add_argument("new", metavar="NEW", help="address of the copy")
    parser.add_argument("--name", help="what customers see beside the address; default: as the old one")
    parser.add_argument("--id", help="under which its history is kept; default: the address")
    parser.set_defaults(run=duplicate)


# --- looking ---------------------------------------------------------------------------------------------------------


def list_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "touchpoint.list")
    if options.json:
        show.as_json(found)
        return 0
    show.table(
        ("ID", "ADDRESS", "NAME", "ACTIVE", "CONNECTED", "DIRECTION", "PROVIDER", "QUEUES"),
        (
            (
                *(t["id"], t["address"], t["name"], _word(t["active"]), _word(t["connected"])),
                *(t["direction"], t["provider"], ", ".join(t["linked_queues"]) or "-"),
            )
            for t in found
        ),
    )
    if not found:
        print('there is none; mail-gateway touchpoint add ADDRESS --name "NAME"', file=sys.stderr)
    return 0


def _word(flag: bool | None) -> str:
    return "-" if flag is None else "yes" if flag else "no"


def show_(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "touchpoint.show", touchpoint=options.touchpoint)
    if options.json:
        show.as_json(found)
        return 0
    flat = dict(_flat(found))
    show.facts(flat, flat)
    return 0


def _flat(found: Mapping[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Yield `pace.connections` and the like, each with its value."""
    for key, value in found.items():
        if isinstance(value, Mapping) and value:
            yield from _flat(value, f"{before}{key}.")
        else:
            yield f"{before}{key}", None if value == {} else value


# --- editing ---------------------------------------------------------------------------------------------------------


def add_touchpoint(options: argparse.Namespace) -> int:
    from gateway.config import amendments, newcomer  # slow to import, as are the others below

    keys = (*("id", "address", "name", "active", "direction", "provider"), *("imap", "smtp", "login", "password"))
    said = {key: getattr(options, key) for key in (*keys, "linked_queues") if getattr(options, key) is not None}
    remarks: list[str] = []

    def change(text: str) -> str:
        new = newcomer.compose(said, _data(text))
        remarks[:] = new.remarks
        return amendments.add(text, new.table)

    exit_code = _revise(options, f"add {options.address}", change)
    for remark in remarks if exit_code == 0 else ():
        print(f"{options.address}: {clean(remark, _LINE)}")
    return exit_code


def duplicate(options: argparse.Namespace) -> int:
    from gateway.config import amendments

    said = {"id": options.id, "address": options.new, "name": options.name}
    changes = {key: value for key, value in said.items() if value is not None}
    doing = f"duplicate {options.old} {options.new}"
    return _revise(options, doing, lambda text: amendments.duplicate(text, options.old, changes))


def remove(options: argparse.Namespace) -> int:
    from gateway.config import amendments

    if not options.force:
        _refuse_unsettled(options)
    return _revise(options, f"remove {options.touchpoint}", lambda text: amendments.remove(text, options.touchpoint))


def switch(options: argparse.Namespace) -> int:
    from gateway.config import amendments

    names, active = options.touchpoints, options.active
    doing = f"{'activate' if active else 'deactivate'} {' '.join(names)}"
    already = [f"{name} is {'' if active else 'not '}active already" for name in names]
    return _revise(options, doing, lambda text: amendments.set_active(text, names, active), already)


def _data(text: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return {}  # said by whoever edits it


def _refuse_unsettled(options: argparse.Namespace) -> None:
    """Raise CommandError while mail of the touchpoint waits: nobody could answer it, and it could not leave."""
    from gateway import config
    from gateway.config import amendments

    gateway = config.load_gateway(options.config)
    if not (gateway.state_dir / "gateway.db").exists():
        return
    id = amendments.id_of(gateway.rules.read_text("utf-8-sig"), options.touchpoint)
    waiting = client.ask(options.config, "touchpoint.unsettled", id=id)
    told = [
        f"{count} {word}{'s' * (count != 1)} {state}"
        for count, word, state in (
            (waiting["recipients"], "recipient", "in the outbox"),
            (waiting["arrived"], "message", "not routed yet"),
            (waiting["conversations"], "conversation", "open"),
        )
        if count
    ]
    if told:
        raise CommandError(
            f"{id} has unsettled mail: {', '.join(told)}; without the touchpoint it could neither leave nor be"
            f" answered. Deactivate it until that is done; --force removes it all the same"
        )


def _revise(
    options: argparse.Namespace, doing: str, change: Callable[[str], str], unchanged: Sequence[str] = ()
) -> int:
    """Edit, reload, and tell what changed. `doing`: for the history. `unchanged`: what to say when it is so already."""
    from gateway.config import edition

    try:
        done = edition.revise(options.config, change)
    except ConfigError as error:
        raise CommandError("\n".join(("nothing was changed:", *map(str, error.problems)))) from None
    if done.after == done.before:
        print("\n".join(unchanged))
        return 0
    try:
        answer = client.ask(options.config, "reload", must_run=True, by=f"touchpoint {doing} by {client.who()}")
    except CommandError as error:
        if error.exit_code != client.NOT_RUNNING:
            raise
        _tell(done, _changes(done))
        print("the daemon is not running; it loads this at its next start", file=sys.stderr)
        return 0
    if answer["refused"]:
        return _give_up(done, answer["lines"])
    _tell(done, answer.get("changes", answer["lines"]))
    return 0


def _give_up(done: Edition, lines: list[str]) -> int:
    from gateway.config import edition

    is_back = edition.take_back(done)
    for line in lines:
        print(clean(line, _LINE), file=sys.stderr)
    after = "is as it was before" if is_back else "has the change, and was edited by somebody else since"
    print(f"the daemon refuses it; {done.path} {after}", file=sys.stderr)
    return 1


def _changes(done: Edition) -> list[str]:
    from gateway.config import diff

    return diff(done.old, done.new).lines() if done.old is not None else [f"{done.path} was changed"]


def _tell(done: Edition, changes: list[str]) -> None:
    """Print what changed, and what is to be said about the new file that was not to be said about the old one."""
    for line in changes:
        print(clean(line, _LINE))
    known = {problem.message for problem in done.old.problems} if done.old is not None else set()
    for problem in done.new.problems:
        if problem.message not in known:
            print(problem, file=sys.stderr)
