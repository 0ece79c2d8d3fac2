"""A provider as the gateway sees one: a Dovecot and a Postfix that belong together, and touchpoints that live there."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.dovecot import Dovecot
from tests.support.postfix import Postfix

CUSTOMER = "customer@clients.example"  # has a mailbox here, so that a test can read what went out
_numbers = itertools.count(1)


class Provider:
    """`server` (a Dovecot unless asked otherwise) and `postfix`, running. `postfix` is made at its first use: some
    tests only read mail, and it hands over to a Dovecot only.
    """

    def __init__(self, authority: Authority, kind: type[Dovecot | Cyrus] = Dovecot) -> None:
        self.authority = authority
        self.server = kind({CUSTOMER: "customer"}, authority.issue(f"imap-{next(_numbers)}"))
        self._postfix: Postfix | None = None
        self.server.start()

    @property
    def dovecot(self) -> Dovecot:
        assert isinstance(self.server, Dovecot)
        return self.server

    @property
    def postfix(self) -> Postfix:
        if self._postfix is None:
            self._postfix = Postfix(self.dovecot, self.authority.issue(f"smtp-{next(_numbers)}"))
            self._postfix.start()
        return self._postfix

    def close(self) -> None:
        if self._postfix is not None:
            self._postfix.close()
        self.server.close()

    def touchpoint(self, id: str, direction: str = "inbound", *, tls: bool = True, **keys: Any) -> dict[str, Any]:
        """Return a `[[touchpoint]]` with a fresh mailbox here: `ID@support.example`, linked to the queue `ID`."""
        address = f"{id}@support.example"
        self.set_password(id, f"secret of {id}")
        touchpoint: dict[str, Any] = {
            "id": id,
            "address": address,
            "name": f"{id.title()} team",
            "active": True,
            "direction": direction,
            "provider": "custom",
            "password": f"file:{self._secret(id)}",
            "ca_file": str(self.authority.ca_file),
        }
        if direction != "outbound":
            touchpoint["linked_queues"] = [id]
            touchpoint["imap"] = (
                f"imaps://localhost:{self.server.imaps_port}"
                if tls
                else f"imap+insecure://127.0.0.1:{self.server.imap_port}"
            )
        if direction != "inbound":
            touchpoint["smtp"] = (
                f"smtp://localhost:{self.postfix.starttls_port}"
                if tls
                else f"smtp+insecure://127.0.0.1:{self.postfix.plain_port}"
            )
        return {**touchpoint, **keys}

    def add_mailboxes(self, ids: Iterable[str]) -> None:
        """Make many mailboxes at once: each of them alone has to wait until Dovecot looks into its file."""
        self.server.add_users({f"{id}@support.example": f"secret of {id}" for id in ids})

    def set_password(self, id: str, password: str, *, ours: bool = True) -> None:
        """Change a touchpoint's password here and, when it is `ours`, in the gateway's secret file."""
        self.server.set_password(f"{id}@support.example", password)
        if ours:
            self._secret(id).write_text(password)

    def _secret(self, id: str) -> Path:
        return self.authority.directory / f"secret-{id}"
