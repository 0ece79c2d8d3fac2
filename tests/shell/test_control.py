"""The control socket: answers, refusals, bad requests, and a client that leaves."""

from __future__ import annotations

import json
import stat
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest
import trio

from gateway import control, control_client
from gateway.cli import client
from gateway.errors import CommandError, Unavailable


async def echo(args: Mapping[str, Any]) -> Any:
    return dict(args)


async def refuse(args: Mapping[str, Any]) -> Any:
    raise CommandError("no such conversation", 1)


async def away(args: Mapping[str, Any]) -> Any:
    raise Unavailable("the disk is full; free some space")


async def broken(args: Mapping[str, Any]) -> Any:
    raise ZeroDivisionError


async def unwritable(args: Mapping[str, Any]) -> Any:
    return b"no JSON"


async def listing(args: Mapping[str, Any]) -> Any:
    return [{"number": number, "text": "naïve 🙂, \n]"} for number in range(args["count"])]


HANDLERS = {
    "listing": listing,
    "echo": echo,
    "refuse": refuse,
    "away": away,
    "broken": broken,
    "unwritable": unwritable,
}


@asynccontextmanager
async def serving(path: Path) -> AsyncIterator[Path]:
    async with trio.open_nursery() as nursery:
        await nursery.start(control.serve, path, HANDLERS)
        yield path
        nursery.cancel_scope.cancel()


async def ask(path: Path, command: str, **args: Any) -> Any:
    return await trio.to_thread.run_sync(lambda: control_client.ask(path, command, args, timeout=10))


async def test_a_command_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path / "control.sock") as path:
        assert await ask(path, "echo", id="x", text="naïve 🙂") == {"id": "x", "text": "naïve 🙂"}


@pytest.mark.parametrize("count", [0, 1, 99, 100, 101, 200, 1234])
async def test_a_listing_comes_whole_however_long_it_is(tmp_path: Path, count: int) -> None:
    async with serving(tmp_path / "control.sock") as path:
        found = await ask(path, "listing", count=count)
    assert found == await listing({"count": count})


async def test_a_long_listing_is_made_text_in_pieces_between_which_others_have_their_turn() -> None:
    pieces: list[bytes] = []

    class Stream:
        async def send_all(self, data: bytes) -> None:
            pieces.append(data)
            await trio.lowlevel.checkpoint()

    found = await listing({"count": 20_000})
    await control._send(cast(trio.SocketStream, Stream()), {"result": found})
    assert json.loads(b"".join(pieces)) == {"result": found}
    assert max(map(len, pieces)) < 20_000  # bytes: well under a millisecond's work


@pytest.mark.parametrize(
    ("command", "message", "exit_code"),
    [
        pytest.param("refuse", "no such conversation", 1, id="refused"),
        pytest.param("away", "the disk is full", 75, id="try-again"),
        pytest.param("broken", "internal error; the log has", 1, id="our-bug"),
        pytest.param("unheard-of", "of one version", 2, id="unknown"),
    ],
)
async def test_what_cannot_be_done_is_one_line_and_an_exit_code(
    tmp_path: Path, command: str, message: str, exit_code: int
) -> None:
    async with serving(tmp_path / "control.sock") as path:
        with pytest.raises(CommandError, match=message) as caught:
            await ask(path, command)
        assert caught.value.exit_code == exit_code
        assert await ask(path, "echo", still="there") == {"still": "there"}


@pytest.mark.parametrize("request_", [b"not json\n", b"[]\n", b'{"command": ["x"]}\n', b"\n"])
async def test_garbage_is_answered_and_harms_nobody(tmp_path: Path, request_: bytes) -> None:
    async with serving(tmp_path / "control.sock") as path:
        stream = await trio.open_unix_socket(path)
        await stream.send_all(request_)
        answer = json.loads(await stream.receive_some())
        assert answer["exit"] == 2
        await stream.aclose()


async def test_a_client_that_leaves_in_the_middle_is_forgotten(tmp_path: Path) -> None:
    async with serving(tmp_path / "control.sock") as path:
        stream = await trio.open_unix_socket(path)
        await stream.send_all(b'{"command": "ec')
        await stream.aclose()
        assert await ask(path, "echo") == {}


async def test_only_owner_and_group_may_connect_and_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "control.sock").write_text("left over")
    async with serving(tmp_path / "control.sock") as path:
        mode = path.stat().st_mode
        assert stat.S_ISSOCK(mode)
        assert stat.S_IMODE(mode) == 0o660
    assert not path.exists()


def test_without_a_daemon_asking_is_a_connection_error(tmp_path: Path) -> None:
    with pytest.raises(ConnectionError):
        control_client.ask(tmp_path / "control.sock", "echo", {})


async def test_a_word_that_is_no_text_is_answered(tmp_path: Path) -> None:
    async with serving(tmp_path / "control.sock") as path:
        assert await ask(path, "echo", word="\udcff") == {"word": "\udcff"}
        with pytest.raises(ConnectionError):
            await ask(path, "unwritable")
        assert await ask(path, "echo", still="there") == {"still": "there"}


async def test_no_socket_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match=r"no control socket at .*108 bytes"):
        await control.serve(tmp_path / ("long" * 30) / "control.sock", HANDLERS)


def test_a_command_looks_where_systemd_has_put_the_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNTIME_DIRECTORY", raising=False)
    state_dir = Path("/var/lib/mail-gateway")
    in_a_shell = control_client.places_to_ask(state_dir)
    assert in_a_shell == (Path("/run/mail-gateway/control.sock"), Path("/var/lib/mail-gateway/control.sock"))
    monkeypatch.setenv("RUNTIME_DIRECTORY", "/run/mail-gateway")  # as the unit sets it for the daemon
    assert control_client.socket_path(state_dir) in in_a_shell


async def test_a_command_finds_the_daemon_wherever_it_listens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text(f"state_dir = '{tmp_path}'")

    async def command() -> Any:
        return await trio.to_thread.run_sync(lambda: client.ask(config, "echo", must_run=True, id="x"))

    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "of-something-else"))
    async with serving(tmp_path / "control.sock"):
        assert await command() == {"id": "x"}
    with pytest.raises(CommandError, match="not running"):
        await command()
    (tmp_path / "run").mkdir()
    monkeypatch.setenv("RUNTIME_DIRECTORY", str(tmp_path / "run"))
    async with serving(tmp_path / "run" / "control.sock"):
        assert await command() == {"id": "x"}
