"""Who sent it? Messages with what is known about their senders, a real name server, real worker processes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import trio

from gateway.bridge import open_bridge
from gateway.config import Config
from gateway.inbound import resolver
from gateway.inbound.authentication import Authenticator
from gateway.mime.scan import scan
from gateway.model import Authentication
from gateway.workers import WorkerPool
from tests.support.nameserver import NameServer, silent_server
from tests.unit.config.writing import load

DATA = Path(__file__).parents[1] / "data" / "authentication"
CASES = sorted(path.name.removesuffix(".eml") for path in DATA.glob("*.eml"))
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC).timestamp()


@pytest.fixture(scope="module")
def name_server() -> Iterator[NameServer]:
    server = NameServer((DATA / "zone").read_text().splitlines(), broken=["broken.example"])
    server.start()
    yield server
    server.close()


@pytest.fixture
async def authenticator() -> AsyncIterator[Authenticator]:
    async with open_bridge() as bridge:
        workers = WorkerPool()
        yield Authenticator(bridge, workers, now=lambda: NOW)
        await bridge.call(workers.close)


def configure(directory: Path, server: str, case: dict[str, Any]) -> Config:
    rules = f"""
[[touchpoint]]
id = "support"
address = "support@shop.example"
name = "Support"
active = true
provider = "{case["provider"]}"
auth = "password"
password = "env:PASSWORD"
linked_queues = ["support"]
authserv_ids = {json.dumps(case.get("authserv_ids", []))}
"""
    if case["provider"] == "custom":
        rules += 'imap = "imaps://imap.shop.example"\nsmtp = "smtps://smtp.shop.example"\n'
    gateway = f"""
state_dir = "state"
[inbound]
authentication = "{case.get("authentication", "auto")}"
resolvers = ["{server}"]
trusted_sealers = {json.dumps(case.get("trusted_sealers", []))}
"""
    return load(directory, rules, gateway)


async def judge(authenticator: Authenticator, raw: bytes, config: Config) -> Authentication:
    async def raw_of() -> bytes:
        return raw

    return await authenticator.authenticate(raw_of, scan(raw), config.touchpoints["support"], config)


@pytest.mark.parametrize("name", CASES)
async def test_the_sender_is_who_it_is(
    name: str, name_server: NameServer, authenticator: Authenticator, tmp_path: Path
) -> None:
    case = json.loads((DATA / f"{name}.expect.json").read_text())
    config = configure(tmp_path, name_server.address, case)
    found = await judge(authenticator, (DATA / f"{name}.eml").read_bytes(), config)
    assert {key: value for key, value in asdict(found).items() if key != "detail"} == case["expect"], found.detail


async def test_a_resolver_that_is_silent_costs_its_time_once_and_fails_nobody(
    authenticator: Authenticator, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resolver, "PATIENCE", 0.3)
    raw = (DATA / next(name for name in CASES if name.endswith("-spf-fails"))).with_suffix(".eml").read_bytes()
    with silent_server() as silent:
        config = configure(tmp_path, f"127.0.0.1:{silent.getsockname()[1]}", {"provider": "custom"})
        for _ in range(4):
            found = await judge(authenticator, raw, config)
            assert (found.spf, found.dmarc) == ("temperror", "temperror")
        began = trio.current_time()
        for _ in range(50):
            found = await judge(authenticator, raw, config)
            assert (found.spf, found.dmarc) == ("temperror", "temperror")
        assert trio.current_time() - began < 5  # and not 50 times the patience
