"""`run`, `demo`, `check`, `reload`, `status`, `reconcile`."""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any, Final

from gateway.cli import arguments, client, show
from gateway.errors import CommandError, ConfigError, Problem, Severity
from gateway.text import clean

_COUNTS: Final = ("at_provider", "known", "owed", "older", "gaps", "gone", "unfetched")


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    running = commands.add_parser("run", parents=[shared], help="the daemon, in the foreground")
    running.set_defaults(run=run)
    demo = commands.add_parser("demo", help="the whole story on this machine: no accounts, no root")
    demo.add_argument("--keep", action="store_true", help="leave it running and print ports and logins")
    demo.set_defaults(run=run_demo)
    checking = commands.add_parser("check", parents=[shared], help="all problems of the configuration at once")
    checking.add_argument("file", nargs="?", type=Path, metavar="FILE", help="another gateway.toml or rules.toml")
    arguments.add_json(checking)
    checking.set_defaults(run=check)
    reloading = commands.add_parser("reload", parents=[shared], help="take the edited rules into use")
    arguments.add_json(reloading)
    reloading.set_defaults(run=reload)
    status = commands.add_parser("status", parents=[shared], help="touchpoints, queues, alarms")
    status.add_argument("--watch", action="store_true", help="again every 2 seconds")
    arguments.add_json(status)
    status.set_defaults(run=show_status)
    reconciling = commands.add_parser(
        "reconcile", parents=[shared], help="compare the provider's folders with what is here; fetch what is missing"
    )
    reconciling.add_argument("touchpoint", nargs="?", metavar="TOUCHPOINT", help="only this one (its id or address)")
    arguments.add_json(reconciling)
    reconciling.set_defaults(run=reconcile)


def run(options: argparse.Namespace) -> int:
    from gateway.daemon import main

    return main(options.config)


def run_demo(options: argparse.Namespace) -> int:
    from gateway.demo import story

    return int(story.main(keep=options.keep))


def check(options: argparse.Namespace) -> int:
    from gateway import config

    problems = config.check(options.config, options.file)
    if options.json:
        show.as_json([_problem(problem) for problem in problems])
    else:
        for problem in problems:
            print(problem)
        if not problems:
            print("no problem found", file=sys.stderr)
    return 1 if any(problem.severity is Severity.ERROR for problem in problems) else 0


def _problem(problem: Problem) -> dict[str, Any]:
    return {
        "file": str(problem.file),
        "line": problem.line,
        "severity": str(problem.severity),
        "message": problem.message,
    }


def reload(options: argparse.Namespace) -> int:
    try:
        answer = client.ask(options.config, "reload", must_run=True, by=f"reload by {client.who()}")
    except ConfigError as error:
        raise CommandError(f"nothing was changed:\n{error}") from error
    if options.json:
        show.as_json(answer)
    else:
        for line in answer["lines"]:
            print(clean(line, 1000), file=sys.stderr if answer["refused"] else sys.stdout)
    return 1 if answer["refused"] else 0


def show_status(options: argparse.Namespace) -> int:
    while True:
        found = client.ask(options.config, "status", must_run=True)
        if options.watch and sys.stdout.isatty() and not options.json:
            print("\033[2J\033[H", end="")
        if options.json:
            show.as_json(found)
        else:
            _print_status(found)
        if not options.watch:
            return 1 if found["alarms"] else 0
        sys.stdout.flush()
        time.sleep(2)


def reconcile(options: argparse.Namespace) -> int:
    found = client.ask(options.config, "reconcile", must_run=True, touchpoint=options.touchpoint)
    if options.json:
        show.as_json(found)
    else:
        show.table(
            (
                *("TOUCHPOINT", "FOLDER", "ROLE", "AT PROVIDER", "KNOWN", "OWED", "OLDER"),
                *("GAPS", "GONE", "UNFETCHED", "ERROR"),
            ),
            (
                (
                    *(folder["touchpoint"], folder["folder"] or "-", folder["role"] or "-"),
                    *("-" if folder[key] is None else folder[key] for key in _COUNTS),
                    folder["error"],
                )
                for folder in found
            ),
        )
        if not found:
            print("no touchpoint is watched", file=sys.stderr)
    return 1 if any(folder["error"] or folder["unfetched"] for folder in found) else 0


def _print_status(found: dict[str, Any]) -> None:
    daemon = found["daemon"]
    rules = daemon["rules"]
    print(f"mail-gateway {daemon['version']}, pid {daemon['pid']}, up {show.ago(daemon['started_at'])}")
    if rules["origin"] == "none":
        print("no rules are in force, and no mail moves: there is no good copy of rules.toml")
    else:
        copy = ", from the last good copy" if rules["origin"] == "last-good" else ""
        print(f"rules loaded {show.ago(rules['loaded_at'])} ago{copy}")
    if rules["error"]:
        print(f"  the file is refused: {clean(rules['error'], 1000)}")
    elif rules["changed_on_disk"]:
        print("  a file was edited since and is not loaded; mail-gateway check, then mail-gateway reload")
    if found["touchpoints"]:
        print()
        show.table(
            (
                *("TOUCHPOINT", "ACTIVE", "STATE", "SINCE", "HEARD", "LAST MAIL", "LAG", "UNFETCHED", "LANE"),
                *("QUEUED", "DEFERRED", "HELD", "UNCERTAIN", "CAUSE"),
            ),
            (
                (
                    t["address"],
                    "yes" if t["active"] else "no",
                    t["state"],
                    show.ago(t["since"]),
                    show.ago(t["last_server_byte_at"]),
                    show.ago(t["last_message_at"]),
                    "-" if t["lag_seconds"] is None else show.duration(t["lag_seconds"]),
                    t["unfetched"],
                    t["lane"] or "-",
                    t["queued"],
                    t["deferred"],
                    t["held"],
                    t["uncertain"],
                    t["cause"],
                )
                for t in found["touchpoints"]
            ),
        )
    if unsigned := [(t["address"], t["signatures_left_out"]) for t in found["touchpoints"] if t["signatures_left_out"]]:
        print()
        show.table(("TOUCHPOINT", "SENT WITHOUT THE SIGNATURE"), unsigned)
    watched = [(t["address"], _folders(t["folders"])) for t in found["touchpoints"] if t["folders"]]
    if watched:
        print()
        show.table(("WATCHED", "FOLDERS"), watched)
    if found["queues"]:
        print()
        show.table(
            ("QUEUE", "OPEN", "OLDEST", "AGENTS"),
            ((q["name"], q["open"], show.ago(q["oldest_at"]), ", ".join(q["agents"])) for q in found["queues"]),
        )
    for alarm in found["alarms"]:
        place = f"{alarm['touchpoint']}: " if alarm["touchpoint"] else ""
        print(f"\nALARM {place}{clean(alarm['cause'])} (since {show.ago(alarm['since'])})")
        print(f"      {clean(alarm['action'])}")


def _folders(folders: list[dict[str, str]]) -> str:
    """Return the folders by what they are: `INBOX, Orders; junk: Spam; sent: Sent`."""
    by_role: dict[str, list[str]] = {}
    for folder in folders:
        by_role.setdefault(folder["role"], []).append(clean(folder["name"]))
    return "; ".join(
        ", ".join(names) if role == "queue" else f"{role}: {', '.join(names)}" for role, names in by_role.items()
    )
