"""A site with several of everything, and mail in its store, for tests of what people see of them."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from argon2 import PasswordHasher

from gateway.model import Arrival, Location, MessageClass, Role, Step, Verdict, to_ms
from gateway.rules.conversation import Ties, thread_key
from gateway.state import folders, mailboxes, queues, raw
from gateway.state.folders import Folder, Opening
from gateway.state.queues import Routed
from gateway.state.store import Store
from tests.support.ports import free_port

AT = datetime(2026, 11, 23, 10, tzinfo=UTC)

RULES = """
[[touchpoint]]
id = "support"
address = "support@example.com"
name = "Example Support"
active = true
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
linked_queues = ["support"]
preview_roles = ["supervisor"]

[[touchpoint]]
id = "billing"
address = "billing@example.com"
name = "Example Billing"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
linked_queues = ["billing"]

[[touchpoint]]
id = "news"
address = "news@example.com"
name = "Example News"
active = true
direction = "outbound"
smtp = "smtps://smtp.example.com"

[[touchpoint]]
id = "reports"
address = "reports@example.com"
name = "Example Reports"
active = true
direction = "inbound"
imap = "imaps://imap.example.com"
linked_queues = ["support"]

[[agent]]
login = "Ana@example.com"
name = "Ana Lima"
ring_groups = ["support"]

[[agent]]
login = "boss@example.com"
name = "Bea Santos"
role = "admin"
ring_groups = ["support", "billing"]
password_hash = "{hash}"

[[agent]]
login = "sofia@example.com"
name = "Sofia Reis"
role = "supervisor"
active = false
ring_groups = []
email = "sofia@home.example"
touchpoints = ["news@example.com"]
"""


@cache
def _hash() -> str:
    return PasswordHasher(time_cost=1, memory_cost=64, parallelism=1).hash("a long password")


def write_site(directory: Path) -> Path:
    """Write both files into `directory`, with the state beside them; return the path of gateway.toml."""
    (directory / "rules.toml").write_text(RULES.replace("{hash}", _hash()))
    path = directory / "gateway.toml"
    path.write_text(
        f'state_dir = "{directory / "state"}"\n[submission]\nlisten = ["smtp+insecure://127.0.0.1:{free_port()}"]\n'
    )
    return path


def arrive(
    store: Store,
    name: str,
    *parents: str,
    touchpoint: str = "support",
    into: str = "support",
    subject: str = "Help",
    body: bytes = b"body",
    role: Role = Role.QUEUE,
    blocked: bool = False,
) -> tuple[int, int]:
    """Play the intake; return the ids of message and conversation. `role`: of the folder in which it lies."""
    id = store.ids.next()
    folder = "INBOX" if role is Role.QUEUE else role.value.title()
    opening = Opening(Folder(touchpoint, folder, 1, 0, 0, to_ms(AT), 0, role))
    store.submit(folders.open_folder, opening).result(10)
    arrival = Arrival(id, touchpoint, Location(folder, 1, id), AT, datetime.now(UTC), body, id - 1, role=role)
    store.submit(mailboxes.arrive, mailboxes.NewArrival(arrival, ((raw.chunk_key(id, 0), body),))).result(10)
    routed = Routed(
        id,
        touchpoint,
        Verdict(
            MessageClass.HUMAN,
            (into,),
            tags=("new",),
            quarantine=blocked or role is Role.JUNK,
            junk_alone=role is Role.JUNK and not blocked,
            trail=(
                Step("class", "no sign of a machine", "human"),
                *([Step("blocklist", "carla@customer.example is on it", "quarantine")] if blocked else []),
            ),
        ),
        Ties((thread_key(touchpoint, name),), tuple(thread_key(touchpoint, parent) for parent in parents)),
        name,
        subject,
        "carla@customer.example",
        "Carla",
        True,
        store.ids.next(),
        to_ms(AT),
    )
    return id, store.submit(queues.route, routed).result(10).conversation
