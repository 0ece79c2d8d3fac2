"""A touchpoint's mailbox task with the real store and the real intake, beside a scripted server: for its tests."""

from __future__ import annotations

import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import trio

from gateway import events
from gateway.bridge import Bridge, open_bridge
from gateway.config import Config, load
from gateway.doorbell import Doorbell
from gateway.health import Health
from gateway.inbound import mailbox
from gateway.inbound.intake import Intake
from gateway.inbound.room import Room
from gateway.state import folders
from gateway.state.store import Store, Tuning
from tests.shell.imap_script import ImapServer, serving

RULES = """
[[touchpoint]]
id = "support"
address = "support@support.example"
name = "Support"
active = true
direction = "inbound"
imap = "{url}"
password = "file:secret"
linked_queues = ["support"]
{more}
[[agent]]
login = "ana@support.example"
name = "Ana"
ring_groups = ["support"]
"""


@dataclass
class Box:
    """A server, and a gateway's mailbox task beside it."""

    server: ImapServer
    store: Store
    health: Health
    config: Config
    intake: Intake
    start: Callable[[], None]
    stop: Callable[[], None]
    doorbell: Doorbell
    reconcilers: mailbox.Reconcilers
    bridge: Bridge
    lost_before: int  # connections lost by tests before this one

    def subjects(self) -> Counter[str]:
        def read(db: Any) -> list[str]:
            return [row[0] for row in db.execute("SELECT subject FROM message WHERE state = 'routed'")]

        return Counter(self.store.read(read).result(5))

    def entries(self) -> int:
        return int(self.store.read(lambda db: db.execute("SELECT count(*) FROM entry").fetchone()[0]).result(5))

    def folder(self, name: str = "INBOX") -> folders.Folder | None:
        return self.store.read(folders.find_folder, "support", name).result(5)

    def cursor(self) -> int:
        folder = self.folder()
        return -1 if folder is None else folder.cursor

    def owed(self) -> list[tuple[int, str]]:
        def read(db: Any) -> list[tuple[int, str]]:
            return list(db.execute("SELECT uid, reason FROM unfetched ORDER BY uid"))

        return self.store.read(read).result(5)

    def located(self) -> list[tuple[str, int]]:
        def read(db: Any) -> list[tuple[str, int]]:
            return list(db.execute("SELECT folder, uid FROM location ORDER BY folder, uid"))

        return self.store.read(read).result(5)

    async def reconcile(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = await self.reconcilers["support"]()
        return found

    async def until(self, check: Callable[[], object], what: str) -> None:
        with trio.move_on_after(10):
            while not check():  # noqa: ASYNC110 - many things are waited for here, also what only the store knows
                await trio.sleep(0.005)
            return
        ledger = f"{self.subjects()} {self.located()} {self.owed()}"
        health = self.health.touchpoint("support")
        raise AssertionError(f"in vain: {what}; {ledger} {health} {self.server.commands[-8:]}")

    async def watching(self) -> None:
        await self.until(lambda: self.health.touchpoint("support").state == "watching", "watching")

    async def has(self, *numbers: int) -> None:
        """Wait for letters with these numbers; all of them, each once, and nothing else."""
        wanted = Counter(f"letter {number}" for number in numbers)
        await self.until(lambda: self.subjects() == wanted, f"letters {numbers}")
        assert self.entries() == len(numbers)


@asynccontextmanager
async def box(
    tmp_path: Path, server: ImapServer, more: str = "", *, limit: str = "1 MB", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Box]:
    (tmp_path / "secret").write_text("secret")
    async with serving(server, tls) as port, open_bridge() as bridge:
        url = f"imaps://localhost:{port}" if tls else f"imap+insecure://127.0.0.1:{port}"
        (tmp_path / "rules.toml").write_text(RULES.format(url=url, more=more))
        (tmp_path / "gateway.toml").write_text(
            f'hostname = "gw.example"\nstate_dir = "{tmp_path}"\n[inbound]\nmax_message_size = "{limit}"\n'
        )
        config = load(tmp_path / "gateway.toml")
        store = Store.open(tmp_path / "gateway.db", tuning=Tuning(synchronous="OFF"))
        health = Health(lambda: datetime.now(UTC))
        try:
            intake = Intake(store, lambda: found.config)
            doorbell = Doorbell()
            reconcilers: mailbox.Reconcilers = {}
            async with trio.open_nursery() as nursery:
                scopes: list[trio.CancelScope] = []

                async def watch() -> None:
                    with trio.CancelScope() as scope:
                        scopes.append(scope)
                        await mailbox.run(
                            config.touchpoints["support"],
                            bridge=bridge,
                            store=store,
                            intake=found.intake,
                            current=lambda: found.config,
                            health=health,
                            doorbell=doorbell,
                            room=Room(),
                            reconcilers=reconcilers,
                        )

                found = Box(
                    server,
                    store,
                    health,
                    config,
                    intake,
                    start=lambda: nursery.start_soon(watch),
                    stop=lambda: scopes.pop().cancel(),
                    doorbell=doorbell,
                    reconcilers=reconcilers,
                    bridge=bridge,
                    lost_before=events.counts().get("connection-lost", 0),
                )
                found.start()
                yield found
                nursery.cancel_scope.cancel()
        finally:
            store.close()
        assert bridge.stray_exceptions == 0
