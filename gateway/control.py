"""The daemon's control socket: one JSON request a line, one JSON answer a line.

    → {"command": "queue.list", "args": {"all": false}}
    ← {"result": [...]}   or   {"error": "one clear line", "exit": 1}

The socket's file mode (0660) is the access control: who may write to it administers the gateway. Requests are
bounded, and a client that is slow or gone costs nothing but its own task.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any, Final

import trio

from gateway import events
from gateway.errors import CommandError, GatewayError, Unavailable

_LONGEST_REQUEST: Final = 1 << 20
_AT_ONCE: Final = 100  # elements of a listing
_PATIENCE: Final = 60  # seconds for a client to send its request or take its answer

Handler = Callable[[Mapping[str, Any]], Awaitable[Any]]


async def serve(
    path: Path,
    handlers: Mapping[str, Handler],
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Answer on `path` until cancelled. The caller holds the state directory's lock, so an old socket is a dead one.

    Raises Unavailable when there can be no socket.
    """
    listener = trio.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            await _listen(listener, path)
        except OSError as error:
            raise Unavailable(
                f"no control socket at {path}: {error.strerror or error}; "
                "its directory must be writable, and the whole path shorter than 108 bytes"
            ) from None
        task_status.started()

        async def answer(stream: trio.SocketStream) -> None:
            await _answer(stream, handlers)

        await trio.serve_listeners(answer, [trio.SocketListener(listener)])
    finally:
        listener.close()
        _remove(path)


async def _listen(listener: trio.socket.SocketType, path: Path) -> None:
    _remove(path)
    old_mask = os.umask(0o117)  # from its first instant the socket must not be open to others
    try:
        await listener.bind(str(path))
    finally:
        os.umask(old_mask)
    listener.listen(64)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


async def _answer(stream: trio.SocketStream, handlers: Mapping[str, Handler]) -> None:
    try:
        with trio.fail_after(_PATIENCE):
            request = await _read_line(stream)
        if request is None:
            return
        reply = await _run(request, handlers)
        with trio.fail_after(_PATIENCE):
            await _send(stream, reply)
    except (trio.BrokenResourceError, trio.TooSlowError):
        pass  # the client went away; what it asked for is done or not, as the log says
    except Exception as error:  # whatever a request does to us, it must not end the daemon
        events.bug("control-failed", error)
    finally:
        with trio.CancelScope(shield=True), contextlib.suppress(trio.BrokenResourceError):
            await stream.aclose()


async def _send(stream: trio.SocketStream, reply: Mapping[str, Any]) -> None:
    """Send a listing some elements at a time: nobody else's mail waits while a hundred thousand become text."""
    result = reply.get("result")
    if isinstance(result, list) and len(result) > _AT_ONCE:
        await stream.send_all(b'{"result": [')
        for start in range(0, len(result), _AT_ONCE):
            part = _as_json(result[start : start + _AT_ONCE])[1:-1]
            await stream.send_all(b", " * (start > 0) + part)
        await stream.send_all(b"]}\n")
    else:
        await stream.send_all(_as_json(reply) + b"\n")


def _as_json(value: object) -> bytes:
    # A word of the command line that is no UTF-8 comes back as it went in: as a lone surrogate, escaped
    return json.dumps(value, ensure_ascii=False).encode(errors="backslashreplace")


async def _read_line(stream: trio.SocketStream) -> bytes | None:
    gathered = bytearray()
    while not gathered.endswith(b"\n"):
        part = await stream.receive_some(65536)
        if not part or len(gathered) > _LONGEST_REQUEST:
            return None
        gathered += part
    return bytes(gathered)


async def _run(request: bytes, handlers: Mapping[str, Handler]) -> dict[str, Any]:
    try:
        asked = json.loads(request)
        handler, args = handlers[asked["command"]], asked.get("args", {})
    except (ValueError, KeyError, TypeError, RecursionError):
        return {"error": "the daemon does not know this command; are daemon and command of one version?", "exit": 2}
    try:
        return {"result": await handler(args)}
    except CommandError as error:
        return {"error": str(error), "exit": error.exit_code}
    except GatewayError as error:
        return {"error": str(error), "exit": 75}
    except Exception as error:  # a bug in one command must not end the daemon
        events.bug("command-failed", error, command=asked["command"])
        return {"error": f"{asked['command']}: an internal error; the log has the traceback", "exit": 1}
