"""What a disk holds after a power cut, rebuilt from the journal that tests/shim/powercut.c wrote.

The model is stricter than most file systems: a write counts only after an fsync or fdatasync of its file that began
after it, a name only after one of its directory. What is not covered may be on the disk or not, in any order and in
part: `Surviving` says how much of it is.
"""

from __future__ import annotations

import random
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from tests.support.process import program

_HEADER = struct.Struct("<IIQQ")
_SOURCE = Path(__file__).parent.parent / "shim" / "powercut.c"


class Kind(IntEnum):
    CREATE = 1
    WRITE = 2
    TRUNCATE = 3
    RENAME = 4
    UNLINK = 5
    SYNC_BEGIN = 6
    SYNC_END = 7
    PROMISE = 8
    OPEN = 9


@dataclass(frozen=True, slots=True)
class Record:
    """`end`: where it ends in the journal, in bytes."""

    kind: Kind
    file: int
    offset: int
    data: bytes = field(repr=False)
    end: int = 0


@dataclass(frozen=True, slots=True)
class Surviving:
    """How unsynced writes fare: each sector is kept with probability `kept`. `sector` 0: each write whole or not."""

    kept: float = 0.0
    sector: int = 0


NOTHING = Surviving()


def build_shim(directory: Path) -> Path:
    """Compile the shim; return the library for LD_PRELOAD."""
    library = directory / "powercut.so"
    compiler = program("cc", "gcc libc6-dev")
    flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-O2"]
    subprocess.run([compiler, *flags, "-o", str(library), str(_SOURCE), "-ldl"], check=True)
    return library


def shim_environment(library: Path, directory: Path, journal: Path) -> dict[str, str]:
    return {"LD_PRELOAD": str(library), "POWERCUT_DIR": str(directory), "POWERCUT_JOURNAL": str(journal)}


def read_journal(path: Path) -> list[Record]:
    content = path.read_bytes()
    records, at = [], 0
    while at + _HEADER.size <= len(content):
        kind, length, file, offset = _HEADER.unpack_from(content, at)
        at += _HEADER.size
        records.append(Record(Kind(kind), file, offset, content[at : at + length], at + length))
        at += length
    return records


@dataclass
class _File:
    durable: bytearray = field(default_factory=bytearray)
    pending: list[tuple[int, Record]] = field(default_factory=list)


class Disk:
    """Replays a journal. `directory`: where the program ran, so that names can be told from it."""

    def __init__(self, directory: Path) -> None:
        self._directory = str(directory.resolve())
        self._files: list[_File] = []
        self._by_inode: dict[int, int] = {}
        self._names: dict[str, int] = {}  # durable
        self._pending_names: list[tuple[int, str, int | None]] = []  # (record, path, file or None for gone)
        self._seen_names: dict[str, int] = {}  # as the running program saw them
        self._directories: dict[int, str] = {}
        self._begun: dict[int, int] = {}

    def apply(self, number: int, record: Record) -> None:
        match record.kind:
            case Kind.OPEN if record.file not in self._by_inode:
                self._directories[record.file] = record.data.decode()
            case Kind.CREATE:
                self._by_inode[record.file] = len(self._files)
                self._files.append(_File())
                self._name(number, record.data.decode(), self._by_inode[record.file])
            case Kind.WRITE | Kind.TRUNCATE:
                self._files[self._by_inode[record.file]].pending.append((number, record))
            case Kind.RENAME:
                before, after = record.data.decode().split("\0")
                self._name(number, after, self._seen_names[before])
                self._name(number, before, None)
            case Kind.UNLINK:
                self._name(number, record.data.decode(), None)
            case Kind.SYNC_BEGIN:
                self._begun[record.offset] = number
            case Kind.SYNC_END:
                self._settle(record.file, self._begun.pop(record.offset))

    def _name(self, number: int, path: str, file: int | None) -> None:
        self._pending_names.append((number, path, file))
        if file is None:
            self._seen_names.pop(path, None)
        else:
            self._seen_names[path] = file

    def _settle(self, inode: int, before: int) -> None:
        if inode in self._by_inode:
            file = self._files[self._by_inode[inode]]
            for number, record in file.pending:
                if number < before:
                    _write(file.durable, record)
            file.pending = [entry for entry in file.pending if entry[0] > before]
            return
        directory = self._directories[inode]
        later = []
        for entry in self._pending_names:
            number, path, target = entry
            if number < before and path.rpartition("/")[0] == directory:
                _rename(self._names, path, target)
            else:
                later.append(entry)
        self._pending_names = later

    def lay_out(self, target: Path, surviving: Surviving, dice: random.Random) -> None:
        """Write the files, as they are after a cut at this moment, below `target`."""
        names = dict(self._names)
        for _, path, file in self._pending_names:
            if dice.random() >= surviving.kept:
                break  # file systems keep the order of names: one lost, the later ones lost
            _rename(names, path, file)
        for path, number in names.items():
            place = target / path.removeprefix(self._directory + "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            content = bytearray(self._files[number].durable)
            for _, record in self._files[number].pending:
                for part in _survivors(record, surviving, dice):
                    _write(content, part)
            place.write_bytes(content)


def _rename(names: dict[str, int], path: str, file: int | None) -> None:
    if file is None:
        names.pop(path, None)
    else:
        names[path] = file


def _write(content: bytearray, record: Record) -> None:
    if record.kind is Kind.TRUNCATE:
        del content[record.offset :]
        content.extend(bytes(record.offset - len(content)))
        return
    if len(content) < record.offset:
        content.extend(bytes(record.offset - len(content)))
    content[record.offset : record.offset + len(record.data)] = record.data


def _survivors(record: Record, surviving: Surviving, dice: random.Random) -> Iterator[Record]:
    if not surviving.sector or record.kind is Kind.TRUNCATE:
        if dice.random() < surviving.kept:
            yield record
        return
    at, end = record.offset, record.offset + len(record.data)
    while at < end:
        stop = min(end, (at // surviving.sector + 1) * surviving.sector)
        if dice.random() < surviving.kept:
            yield Record(Kind.WRITE, record.file, at, record.data[at - record.offset : stop - record.offset])
        at = stop


def promises(records: Iterable[Record]) -> list[str]:
    """Return the queue ids that had been promised to clients, in order."""
    return [
        record.data.split(b"queued as ", 1)[1].split()[0].decode() for record in records if record.kind is Kind.PROMISE
    ]


def lay_out_cuts(
    records: Sequence[Record], directory: Path, cuts: Sequence[tuple[int, Surviving]], target: Path, seed: int
) -> Iterator[tuple[Path, int]]:
    """Yield, for each cut (behind how many records, what survives), a directory as after it, and the cut."""
    dice = random.Random(seed)
    disk, done = Disk(directory), 0
    for number, (cut, surviving) in enumerate(sorted(cuts, key=lambda entry: entry[0])):
        for index in range(done, cut):
            disk.apply(index, records[index])
        done = max(done, cut)
        place = target / f"cut-{number}"
        place.mkdir()
        disk.lay_out(place, surviving, dice)
        yield place, cut
