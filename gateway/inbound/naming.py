"""The provider's folders: their names, what they are for, and how much is in them without opening them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from gateway.errors import Unavailable
from gateway.inbound.dialog import Dialog, NoFolder, NotGiven
from gateway.inbound.framing import Response
from gateway.inbound.names import FolderListing, encode_folder, quote, read_folder, read_status
from gateway.inbound.uids import LARGEST_UID
from gateway.text import clean

_MOST_FOLDERS: Final = 10_000
_LISTING_BYTES: Final = 2 * 1024 * 1024
_STATUS_ITEMS: Final = frozenset((b"MESSAGES", b"UIDNEXT", b"UIDVALIDITY", b"HIGHESTMODSEQ"))
_UNUSABLE: Final = frozenset(("\\noselect", "\\nonexistent"))


@dataclass(frozen=True, slots=True)
class Status:
    """A folder as STATUS shows it. `uidnext`, `modseq`: None where the server does not say."""

    uidvalidity: int
    uidnext: int | None
    exists: int
    modseq: int | None = None


class Naming(Dialog):
    """Folders from the outside."""

    _names: dict[str, str] | None = None  # as the server has them, where it does not encode them as it should

    async def folders(self) -> list[FolderListing]:
        """Return the folders that can be opened, in the server's order. Raises NotGiven when it lists none."""
        found: dict[str, FolderListing] = {}
        names: dict[str, str] = {}
        utf8 = self._speaks_utf8
        room = _LISTING_BYTES

        def take(response: Response) -> None:
            nonlocal room
            listed = read_folder(response, utf8=utf8)
            if listed is None or len(found) >= _MOST_FOLDERS or listed[0].attributes & _UNUSABLE:
                return
            room -= sum(map(len, response))
            if room < 0:
                return
            listing, raw = listed
            try:
                usual, text = encode_folder(listing.name, utf8=utf8), raw.decode()
            except ValueError:  # control characters; it cannot be asked for
                return
            found.setdefault(listing.name, listing)
            if usual != quote(text):
                names.setdefault(listing.name, quote(text))

        extended = "IMAP4REV2" in self.capabilities or {"SPECIAL-USE", "LIST-EXTENDED"} <= self.capabilities
        answer = await self._run("LIST", '""', '"*"', *(("RETURN (SPECIAL-USE)",) if extended else ()), take=take)
        if not answer.ok and extended:
            answer = await self._run("LIST", '""', '"*"', take=take)
        if not answer.ok:
            raise NotGiven(f"{self._server} does not list its folders: {clean(answer.text)}")
        self._names = names
        return list(found.values())

    async def status(self, folder: str) -> Status:
        """Return how much is in a folder without opening it; not for the one that is open. Raises NoFolder."""
        values: dict[bytes, int] = {}

        def take(response: Response) -> None:
            values.update(
                {name: value for name, value in (read_status(response) or {}).items() if name in _STATUS_ITEMS}
            )

        asked = ["MESSAGES", "UIDNEXT", "UIDVALIDITY"]
        if self.capabilities & {"CONDSTORE", "QRESYNC"}:
            asked.append("HIGHESTMODSEQ")
        answer = await self._run("STATUS", self._folder_argument(folder), f"({' '.join(asked)})", take=take)
        if answer.condition == b"BAD" and len(asked) > 3:
            answer = await self._run("STATUS", self._folder_argument(folder), f"({' '.join(asked[:3])})", take=take)
        if not answer.ok:
            raise self._no_folder(folder, answer.text)
        uidvalidity = as_number(values.get(b"UIDVALIDITY"))
        if uidvalidity is None:
            raise NotGiven(f"{self._server} gives no UIDVALIDITY for {folder!r}; it cannot be read without loss")
        return Status(
            uidvalidity,
            as_number(values.get(b"UIDNEXT")),
            min(values.get(b"MESSAGES", 0), LARGEST_UID),
            as_modseq(values.get(b"HIGHESTMODSEQ")),
        )

    @property
    def _speaks_utf8(self) -> bool:
        return "UTF8=ACCEPT" in self.enabled

    def _no_folder(self, folder: str, says: str) -> NoFolder:
        return NoFolder(f"{self._server} does not open the folder {folder!r}: {clean(says)}; check `folders`")

    def _folder_argument(self, folder: str) -> str:
        if self._names and folder in self._names:
            return self._names[folder]
        try:
            return encode_folder(folder, utf8=self._speaks_utf8)
        except ValueError as error:
            raise Unavailable(f"the folder {folder!r} cannot be asked for: {error}; check `folders`") from None


def as_number(value: int | None) -> int | None:
    """Return a UID or UIDVALIDITY that can be one."""
    return value if value is not None and 0 < value <= LARGEST_UID else None


def as_modseq(value: int | None) -> int | None:
    """Return a mod-sequence that can be one (RFC 7162 §7: 63 bits)."""
    return value if value is not None and 0 < value < 2**63 else None
