"""`backup FILE`, `restore FILE`."""

from __future__ import annotations

import argparse
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gateway.cli import arguments, client, show
from gateway.errors import CommandError

if TYPE_CHECKING:
    from gateway.recovery import Report


def add(commands: Any, shared: argparse.ArgumentParser) -> None:
    backing = commands.add_parser(
        "backup", parents=[shared], help="the store and the configuration into one file, while the daemon runs or not"
    )
    backing.add_argument("file", type=Path, metavar="FILE", help="an older backup there is replaced when this is whole")
    arguments.add_json(backing)
    backing.set_defaults(run=backup)
    restoring = commands.add_parser(
        "restore", parents=[shared], help="a backup in the place of the store, while no daemon runs"
    )
    restoring.add_argument("file", type=Path, metavar="FILE", help="that `backup` made")
    arguments.add_json(restoring)
    restoring.set_defaults(run=restore)


def backup(options: argparse.Namespace) -> int:
    file = options.file.absolute()
    done = client.ask(options.config, "backup", file=str(file))
    inode = done.pop("inode")
    with suppress(PermissionError):  # a directory that the daemon can look into and we cannot
        if not file.exists() or file.stat().st_ino != inode:
            raise CommandError(
                f"the daemon has written {file} where only it can see it (PrivateTmp= or the like in its unit);"
                " name a file in its state directory"
            )
    if options.json:
        show.as_json(done)
        return 0
    print(f"{file}: {_megabytes(done['size'])}, the state of {done['backed_up_at']}")
    for line in _lines("not in it, to be kept elsewhere:", done["left_out"]):
        print(line)
    return 0


def restore(options: argparse.Namespace) -> int:
    from gateway import recovery  # slow to import

    report = recovery.restore(options.config.absolute(), options.file.absolute())
    if options.json:
        show.as_json(_as_json(report))
        return 0
    for line in _tell(options.file, report):
        print(line)
    return 0


def _tell(file: Path, report: Report) -> Iterable[str]:
    from gateway.desk import rfc3339
    from gateway.model import from_ms

    store = report.store
    yield f"restored {file}: the state of {rfc3339(from_ms(store.backed_up_at))}, epoch {store.epoch}"
    if store.messages:
        yield (
            f"held: {store.messages} message{'s' * (store.messages != 1)} that had not left by then and may have left"
            " since. The provider's Sent folder decides, or a person:"
        )
        yield from (
            f"  {touchpoint}: {count} recipient{'s' * (count != 1)}" for touchpoint, count in store.held.items()
        )
    if store.dropped:
        yield f"dropped: {store.dropped} automatic message{'s' * (store.dropped != 1)}, not to be sent twice"
    if report.aside is not None:
        yield f"kept aside: {report.aside}, the store as it was"
        if report.before is None:
            yield "  it could not be read: what agents sent since the backup and had not left is only in there"
        elif report.before.waiting:
            count = report.before.waiting
            yield (
                f"  {count} message{'s' * (count != 1)} in it, sent by agents since the backup, had not left and will"
                " not leave: tell those who wrote"
            )
    files = report.files
    yield from _lines("put back:", map(str, files.written))
    yield from _lines("left as they are, different from the backup:", map(str, files.kept))
    yield from _lines("missing, and not put back as they lie outside the configuration:", map(str, files.outside))
    yield from _lines("never in a backup, see that they are there:", report.facts.left_out)
    yield "next: mail-gateway check; start the daemon; mail-gateway outbox list shows what is held"


def _lines(heading: str, names: Iterable[str]) -> list[str]:
    found = [f"  {name}" for name in names]
    return [heading, *found] if found else []


def _as_json(report: Report) -> dict[str, Any]:
    from gateway.desk import rfc3339
    from gateway.model import from_ms

    store, files = report.store, report.files
    return {
        "backed_up_at": rfc3339(from_ms(store.backed_up_at)),
        "restored_at": rfc3339(from_ms(store.restored_at)),
        "epoch": store.epoch,
        "messages": store.messages,
        "held": [{"touchpoint": touchpoint, "recipients": count} for touchpoint, count in store.held.items()],
        "dropped": store.dropped,
        "aside": str(report.aside) if report.aside else None,
        "lost": report.before.waiting if report.before else None,
        "put_back": [str(path) for path in files.written],
        "kept": [str(path) for path in files.kept],
        "outside": [str(path) for path in files.outside],
        "left_out": list(report.facts.left_out),
    }


def _megabytes(size: int) -> str:
    return f"{size / 10**6:.1f} MB"
