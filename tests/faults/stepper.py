"""Daemons that count their steps and die at one of them. Run as a program:

    python tests/faults/stepper.py < orders > answers

A step is a commit of the store or a write to the wire of an IMAP session; where it is ordered also a write to a
provider's SMTP server, and the 250 to a client. Each is written down, and at the one that was ordered the daemon kills
itself with SIGKILL, just before it or just after it. The interpreter with all its modules is loaded once; every daemon
is a fork of it, and takes a tenth of the time to start.

Orders and answers are lines of JSON (`tests/support/steps.py`).
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import json
import os
import re
import select
import signal
import sqlite3
import sys
import threading
import traceback
from collections import Counter
from collections.abc import Callable
from typing import Any, NoReturn

import gateway.daemon  # noqa: F401 - with all that a daemon needs: what is loaded here, no fork has to load
from gateway.cli.main import main
from gateway.inbound import intake, protocol
from gateway.outbound import wire
from gateway.state import store
from tests.support.hasty import hasten

_PR_SET_PDEATHSIG = 1
# So that a dozen messages are several batches, windows and parts
_SMALL = {
    "BATCH_MESSAGES": 3,
    "WINDOW_MESSAGES": 5,
    "_RELIST_MESSAGES": 3,
    "PART_BYTES": 8192,
    "CHUNK_BYTES": 8192,
}
_WORDS = re.compile(rb"(?:[A-Z]+[0-9]+ )?([A-Z]+(?: [A-Z]+)?)")


class Steps:
    """Counts by kind, writes each step down, dies at the one that was ordered."""

    def __init__(self, path: str, deadly: tuple[str, int, str] | None) -> None:
        self._record = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        self._deadly = deadly
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    def take(self, kind: str, label: str, do: Callable[[], Any], do_now: Callable[[], Any] | None = None) -> Any:
        """Do a step. `do_now` does it so that it has happened on return, where `do` only sees to it."""
        with self._lock:
            self._counts[kind] += 1
            number = self._counts[kind]
        os.write(self._record, f"{kind} {number} {label}\n".encode())
        if self._deadly == (kind, number, "before"):
            self._die()
        if self._deadly == (kind, number, "after"):
            (do_now or do)()
            self._die()
        return do()

    def _die(self) -> NoReturn:
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError("SIGKILL has no handler")


def count_commits(steps: Steps) -> None:
    """Every transaction of the store's one writing connection ends in a step, those of migrations included."""
    current = threading.local()

    class Counted(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> Any:
            if not sql.lstrip().upper().startswith("COMMIT"):
                return super().execute(sql, *arguments)
            label = getattr(current, "label", "start")
            return steps.take("commit", label, lambda: super(Counted, self).execute(sql, *arguments))

        def commit(self) -> None:
            if self.in_transaction:
                steps.take("commit", "start", super().commit)

        def __exit__(self, *exception: Any) -> Any:
            if exception[0] is None:
                self.commit()
            return super().__exit__(*exception)

    transaction = store.Store._transaction

    def labelled(self: store.Store, units: Any) -> Any:
        current.label = "+".join(dict.fromkeys(unit.operation.__name__ for unit in units))
        return transaction(self, units)

    def connect(self: store.Store) -> sqlite3.Connection:
        return sqlite3.connect(self._path, isolation_level=None, timeout=10, check_same_thread=False, factory=Counted)

    store.Store._connect = connect  # type: ignore[method-assign]  # as a tracer would
    store.Store._transaction = labelled  # type: ignore[method-assign]  # as above


def count_writes(steps: Steps) -> None:
    """Every write to an IMAP server is a step. To be on the wire when we die, it goes past the event loop."""
    write, say_goodbye = protocol.Wire.write, protocol.Wire.say_goodbye

    def counted(self: protocol.Wire, data: bytes) -> None:
        words = _WORDS.match(data)
        label = words[1].decode() if words else "data"
        steps.take("write", label, lambda: write(self, data), lambda: write_now(self.transport, data))

    def counted_goodbye(self: protocol.Wire) -> None:
        if self.cause is None and self.transport is not None:
            steps.take("write", "goodbye", lambda: say_goodbye(self))
        else:
            say_goodbye(self)

    protocol.Wire.write = counted  # type: ignore[method-assign]  # as a tracer would
    protocol.Wire.say_goodbye = counted_goodbye  # type: ignore[method-assign]  # as above


def count_outbound(steps: Steps) -> None:
    """Every write to a provider's SMTP server is a step, and so is the 250 that takes responsibility for a message."""
    ask, send, say = wire.Wire.ask, wire.Wire.send, asyncio.StreamWriter.write

    def counted_ask(self: wire.Wire, commands: bytes, count: int) -> None:
        if not commands:
            return ask(self, commands, count)
        words = b" ".join(line.split(b" ")[0] for line in commands.split(b"\r\n")).decode().strip()
        steps.take("smtp", words, lambda: ask(self, commands, count), lambda: write_now(self._transport, commands))

    def counted_send(self: wire.Wire, content: bytes | memoryview) -> None:
        label = "the dot" if bytes(content[-3:]) == b".\r\n" else "content"
        steps.take("smtp", label, lambda: send(self, content), lambda: write_now(self._transport, content))

    def counted_say(self: asyncio.StreamWriter, data: Any) -> None:
        if b" queued as " not in data:
            return say(self, data)
        steps.take("reply", "250", lambda: say(self, data), lambda: write_now(self.transport, data))

    wire.Wire.ask = counted_ask  # type: ignore[method-assign]  # as a tracer would
    wire.Wire.send = counted_send  # type: ignore[method-assign]  # as above
    asyncio.StreamWriter.write = counted_say  # type: ignore[method-assign]  # as above


def write_now(transport: Any, data: bytes | memoryview) -> None:
    """Write past the event loop, so that it is on the wire when we die."""
    os.write(transport.get_extra_info("socket").fileno(), data)


def think_small() -> None:
    for name, value in _SMALL.items():
        modules = [module for key, module in sys.modules.items() if key.startswith("gateway.") and name in vars(module)]
        assert modules, f"nothing in gateway is called {name} any more"
        for module in modules:
            setattr(module, name, value)


def forget_what_arrived() -> None:
    """Sabotage: what was stored and not routed when the last run ended stays where it is."""

    async def resume(self: intake.Intake) -> int:
        return 0

    intake.Intake.resume = resume  # type: ignore[method-assign]  # that is the sabotage


def be_a_daemon(order: dict[str, Any]) -> NoReturn:
    """In the fork: run the daemon, and end with its exit code."""
    code = 70
    try:
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        os.setsid()
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for target in (1, 2):
            os.dup2(log, target)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.environ.update(order["env"])
        deadly = order["deadly"]
        steps = Steps(order["steps"], (deadly[0], deadly[1], deadly[2]) if deadly else None)
        count_commits(steps)
        count_writes(steps)
        if order["outbound"]:
            count_outbound(steps)
        hasten(chores=order["chores"])
        think_small()
        for change in order["changes"]:
            module, _, function = change.partition(":")
            getattr(importlib.import_module(module), function)()
        if order["forgetful"]:
            forget_what_arrived()
        sys.argv = ["mail-gateway", "run"]
        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def serve() -> None:
    """Fork on order, and tell of each fork's end, until the orders end."""
    gc.collect()
    gc.freeze()  # a fork that looks through what it has inherited copies it
    waiting = b""
    living: set[int] = set()
    while True:
        if select.select([0], [], [], 0.02)[0]:
            piece = os.read(0, 65536)
            if not piece:
                break
            *lines, waiting = (waiting + piece).split(b"\n")
            for line in lines:
                order = json.loads(line)
                if (pid := os.fork()) == 0:
                    be_a_daemon(order)
                living.add(pid)
                answer({"order": order["order"], "pid": pid})
        for pid in list(living):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                living.discard(pid)
                answer({"ended": pid, "code": os.waitstatus_to_exitcode(status)})
    for pid in living:
        os.kill(pid, signal.SIGKILL)


def answer(what: dict[str, Any]) -> None:
    os.write(1, json.dumps(what).encode() + b"\n")


if __name__ == "__main__":
    serve()
