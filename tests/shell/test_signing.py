"""DKIM on the way out: what the provider gets verifies, and a message that cannot be signed waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import uvloop

from gateway.config import Touchpoint
from gateway.config.rules_file import Dkim
from gateway.errors import Unavailable
from gateway.outbound.attempt import Settings
from gateway.outbound.outcome import Cause
from gateway.outbound.pool import Pool
from gateway.outbound.relay import Timeouts
from gateway.outbound.schedule import RetryPolicy
from gateway.outbound.signing import Signer
from gateway.state import lanes
from gateway.state.lifecycle import LaneState
from gateway.state.store import Store
from tests.support import dkim_keys
from tests.support.daemon import Daemon, Site
from tests.support.dkim_keys import Dns, pem_of
from tests.support.outgoing import ADDRESS, TOUCHPOINT, accept, raw_of, states
from tests.support.scripted import ScriptedProvider
from tests.support.waiting import wait_until

BRISK = Timeouts(dial=5, tls=5, greeting=5, command=5, data=5, block=5, dot=5)
DNS = Dns({"s1@example.com": dkim_keys.rsa(), "s2@example.com": dkim_keys.ed25519()})


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    store = Store.open(tmp_path / "gateway.db")
    yield store
    store.close()


@pytest.fixture
def provider() -> Iterator[ScriptedProvider]:
    with ScriptedProvider() as provider:
        yield provider


@pytest.fixture
def key(tmp_path: Path) -> Path:
    path = tmp_path / "dkim.pem"
    path.write_text(pem_of(dkim_keys.rsa()))
    return path


def touchpoint(port: int, key: Path, selector: str = "s1", **keys: Any) -> Touchpoint:
    return Touchpoint.model_validate(
        {
            "id": TOUCHPOINT,
            "address": ADDRESS,
            "name": "Support",
            "active": True,
            "direction": "outbound",
            "smtp": f"smtp+insecure://127.0.0.1:{port}",
            "dkim": {"selector": selector, "domain": "example.com", "private_key": f"file:{key}"},
            **keys,
        }
    )


def drain(store: Store, provider: ScriptedProvider, key: Path, signer: Signer | None = None, **keys: Any) -> None:
    """Send what is due."""
    of = touchpoint(provider.port, key, **keys)

    async def main() -> None:
        pool = Pool(store, lambda told: None, sign=(signer or Signer(store)).signs_for(of), timeouts=BRISK)
        try:
            await pool.drain(Settings(of, "gateway.example", "", RetryPolicy()))
        finally:
            await pool.close()
            await asyncio.sleep(0.01)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def lane_of(store: Store) -> lanes.Lane:
    return store.read(lanes.look, [TOUCHPOINT]).result(10)[TOUCHPOINT]


BODIES = {
    "text": b"Dear customer,\r\n",
    "no line end": b"Dear customer",
    "dots": b".\r\n..\r\n.hidden\r\n\r\n.\r\n",
    "blank end": b"Dear \t customer,\r\n \r\n\r\n\r\n",
    "nothing": b"",
    "several chunks": b"".join(b"line %d \twith  space\r\n" % n for n in range(40_000)),
    "a chunk of blank lines": b"x\r\n" + b"\r\n" * 300_000 + b"y\r\n",
}


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES.keys())
def test_what_the_provider_gets_verifies(store: Store, provider: ScriptedProvider, key: Path, body: bytes) -> None:
    accept(store, body=body)
    drain(store, provider, key)
    (taken,) = provider.taken
    assert states(store) == ["delivered"]
    assert taken.raw.startswith(b"DKIM-Signature: v=1; a=rsa-sha256;")
    assert b"\r\nReceived: by gateway.example (mail-gateway) id " in taken.raw
    assert DNS.verifies(taken.raw)


def test_an_ed25519_key_signs_too(store: Store, provider: ScriptedProvider, key: Path) -> None:
    key.write_text(pem_of(dkim_keys.ed25519()))
    accept(store)
    drain(store, provider, key, selector="s2")
    (taken,) = provider.taken
    assert b"a=ed25519-sha256" in taken.raw
    assert DNS.verifies(taken.raw)


def test_every_attempt_has_a_signature_of_its_own(store: Store, key: Path) -> None:
    def busy_at_first(phase: str, argument: str, session: Any) -> str | None:
        return "451 4.2.0 later" if phase == "dot" and not session.taken - 1 else None

    with ScriptedProvider(busy_at_first) as provider:
        accept(store)
        accept(store)
        drain(store, provider, key)
        assert len(provider.taken) == 2
        assert all(DNS.verifies(taken.raw) for taken in provider.taken)


@pytest.mark.parametrize("size", [0, 300_000], ids=["small", "large"])
def test_a_message_that_is_signed_already_passes_untouched(
    store: Store, provider: ScriptedProvider, key: Path, size: int
) -> None:
    raw = b"dkim-SIGNATURE : v=1; d=else.example;\r\n b=abc\r\n" + raw_of(1, b"x" * 70 + b"\r\n" * (1 + size))
    accept(store, raw=raw)
    drain(store, provider, key)
    (taken,) = provider.taken
    assert taken.raw.startswith(b"Received: ")
    assert taken.raw.partition(b"\r\n\t")[2].partition(b"\r\n")[2] == raw


def test_a_header_longer_than_a_chunk_is_signed_as_a_whole(store: Store, provider: ScriptedProvider, key: Path) -> None:
    raw = b"".join(b"X-%d: %s\r\n" % (n, b"x" * 900) for n in range(400)) + raw_of(1)
    accept(store, raw=raw)
    drain(store, provider, key)
    (taken,) = provider.taken
    assert DNS.verifies(taken.raw)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "cannot be read"), ("spoilt", "holds no key")],
    ids=["missing", "spoilt"],
)
def test_without_a_key_the_lane_is_held_and_the_mail_stays(
    store: Store, provider: ScriptedProvider, key: Path, content: str | None, words: str
) -> None:
    key.unlink()
    if content is not None:
        key.write_text(content)
    signer = Signer(store)
    accept(store)
    accept(store)
    drain(store, provider, key, signer)
    lane = lane_of(store)
    assert (lane.state, lane.cause) == (LaneState.HELD, Cause.DKIM)
    assert words in (lane.detail or "")
    assert "file:" in (lane.detail or "")
    assert provider.taken == []
    assert set(states(store)) == {"held"}

    key.write_text(pem_of(dkim_keys.rsa()))  # mended: the next probe finds it without being told
    store.submit(lanes.try_now, (TOUCHPOINT, 1)).result(10)
    drain(store, provider, key, signer)
    assert lane_of(store).is_open
    assert [DNS.verifies(taken.raw) for taken in provider.taken] == [True, True]


def test_a_key_is_read_once_and_again_when_told(store: Store, key: Path) -> None:
    settings = Dkim.model_validate({"selector": "s1", "domain": "example.com", "private_key": f"file:{key}"})
    signer = Signer(store, now=lambda: 1_795_000_000)
    reader = store.ids.next()  # an id that nobody has: an empty message

    async def sign() -> bytes:
        claimed: Any = type("Claimed", (), {"id": reader, "raw": raw_of(1)})
        return await signer.sign(claimed, settings)

    first = asyncio.run(sign())
    assert b"t=1795000000;" in first
    key.write_text("spoilt")
    assert asyncio.run(sign()) == first
    signer.forget()
    with pytest.raises(Unavailable, match="holds no key"):
        asyncio.run(sign())


def test_a_provider_that_signs_by_itself_is_left_to_it(store: Store, key: Path) -> None:
    signer = Signer(store)
    assert signer.signs_for(touchpoint(1, key)) is not None
    assert signer.signs_for(touchpoint(1, key).model_copy(update={"dkim": None})) is None
    assert signer.signs_for(touchpoint(1, key, provider="gmail")) is None


# --- the daemon ------------------------------------------------------------------------------------------------------


def test_a_running_daemon_takes_a_new_key_at_a_reload_and_waits_for_one_that_is_gone(
    make_daemon: Callable[..., Daemon], provider: ScriptedProvider, key: Path
) -> None:
    site = Site(
        [
            {
                "id": "support",
                "address": ADDRESS,
                "name": "Support",
                "active": True,
                "direction": "outbound",
                "linked_queues": ["support"],
                "smtp": f"smtp+insecure://127.0.0.1:{provider.port}",
                "dkim": {"selector": "s1", "domain": "example.com", "private_key": f"file:{key}"},
            }
        ]
    )
    site.add_agent("ana@gateway.example", "secret", ["support"])
    daemon = make_daemon(site)
    daemon.start()

    def send(name: str) -> None:
        with daemon.submit("ana@gateway.example", "secret") as session:
            raw = f"From: {ADDRESS}\r\nTo: b@clients.example\r\nSubject: {name}\r\n\r\nHello\r\n"
            session.sendmail(ADDRESS, ["b@clients.example"], raw)

    def wait_taken(count: int) -> None:
        wait_until(
            lambda: len(provider.taken) == count, f"{count} taken", state=lambda: (daemon.log_tail(), daemon.outbox())
        )

    send("one")
    wait_taken(1)
    assert DNS.verifies(provider.taken[0].raw)

    other = dkim_keys.rsa(3072)
    key.write_text(pem_of(other))
    assert daemon.reload().returncode == 0
    send("two")
    wait_taken(2)
    assert Dns({"s1@example.com": other}).verifies(provider.taken[1].raw)

    key.write_text("spoilt")
    refused = daemon.reload()
    assert refused.returncode == 1
    assert "holds no key" in refused.stderr
    key.unlink()
    assert daemon.reload().returncode == 0
    send("three")
    wait_until(lambda: daemon.status()["alarms"], "an alarm", state=daemon.log_tail)
    (alarm,) = daemon.status()["alarms"]
    assert "cannot be signed" in alarm["cause"]
    assert "mend the key" in alarm["action"]
    (waiting,) = [message for message in daemon.outbox() if message["subject"] == "three"]
    assert waiting["recipients"][0]["state"] == "held"
    assert waiting["cause"].startswith("dkim: ")

    key.write_text(pem_of(dkim_keys.rsa()))
    assert daemon.reload().returncode == 0
    wait_taken(3)
    assert DNS.verifies(provider.taken[2].raw)
    wait_until(lambda: not daemon.status()["alarms"], "no alarm is left", state=daemon.log_tail)
    assert daemon.stop() == 0
