"""What a test does in the mailboxes of a real IMAP server, whichever it is: look, count, put something in."""

from __future__ import annotations

import contextlib
import imaplib
import socket
from collections.abc import Iterator
from datetime import datetime


class Mailboxes:
    """Mixed into a server that has `users` (login → password) and `imap_port`."""

    users: dict[str, str]
    imap_port: int

    @contextlib.contextmanager
    def session(self, user: str, folder: str | None = None, *, readonly: bool = True) -> Iterator[imaplib.IMAP4]:
        """A logged-in client, in `folder` where one is given."""
        imap = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=60)
        try:
            # imaplib sends a literal and its line end apart: the second waits for 40 ms without this
            imap.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            imap.login(f'"{user}"', self.users[user])
            if folder is not None:
                status, data = imap.select(f'"{folder}"', readonly=readonly)
                assert status == "OK", data
            yield imap
        finally:
            with contextlib.suppress(imaplib.IMAP4.error, OSError):
                imap.logout()
            with contextlib.suppress(OSError):
                imap.shutdown()

    def lets_in(self, user: str, password: str) -> bool:
        with imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=60) as imap:
            try:
                imap.login(f'"{user}"', password)
            except imaplib.IMAP4.error:
                return False
            return True

    def messages(self, user: str, folder: str = "INBOX") -> list[bytes]:
        """Return every message of a folder, oldest first, read by IMAP without marking anything."""
        with self.session(user, folder) as imap:
            items = imap.uid("FETCH", "1:*", "(BODY.PEEK[])")[1]
            return [item[1] for item in items if isinstance(item, tuple)]

    def count(self, user: str, folder: str = "INBOX") -> int:
        return self.status(user, folder)["MESSAGES"]

    def status(self, user: str, folder: str = "INBOX") -> dict[str, int]:
        """Return MESSAGES, UIDNEXT and UIDVALIDITY of a folder."""
        with self.session(user) as imap:
            status, data = imap.status(f'"{folder}"', "(MESSAGES UIDNEXT UIDVALIDITY)")
            assert status == "OK", data
            assert isinstance(data[0], bytes)
            words = data[0].rpartition(b"(")[2].rstrip(b")").decode().split()
            return {name: int(value) for name, value in zip(words[::2], words[1::2], strict=True)}

    def flags(self, user: str, folder: str = "INBOX") -> list[bytes]:
        """Return one FLAGS answer per message: who has marked what as seen."""
        with self.session(user, folder) as imap:
            items = imap.fetch("1:*", "(FLAGS)")[1]
            return [item for item in items if isinstance(item, bytes)]

    def append(self, user: str, raw: bytes, folder: str = "INBOX", at: datetime | None = None, flags: str = "") -> None:
        """Put a message into a folder byte for byte: nothing is added, as it is by a delivery. `at`: INTERNALDATE."""
        with self.session(user) as imap:
            date = "" if at is None else imaplib.Time2Internaldate(at)
            status, data = imap.append(f'"{folder}"', flags, date, raw)
            assert status == "OK", data

    def create_folder(self, user: str, folder: str) -> None:
        with self.session(user) as imap:
            status, data = imap.create(f'"{folder}"')
            assert status == "OK", data
