"""Pictures of a page by whatever Chromium is installed, without a window, a profile, or the network.

The browser is spoken to over two pipes (Chrome DevTools Protocol, `--remote-debugging-pipe`: JSON, each message ended
by NUL on descriptors 3 and 4). So the page is handed over without a file, which the snap of Ubuntu could not read, the
real height of the page can be asked for, and one start serves every picture. It runs in a process group of its own,
which is killed at the end, however that comes.
"""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from gateway.errors import GatewayError

NAMES: Final = (
    "chromium-headless-shell",
    "chromium",
    "google-chrome",
    "google-chrome-stable",
    "chrome",
    "chromium-browser",  # last: on Ubuntu it may be nothing but advice to install the snap
)
TALLEST: Final = 6_000  # pixels; a mail with years of quotes below it is cut there
_LOW_DESCRIPTORS: Final = 10  # descriptors above those that the browser expects as 3 and 4

_OPTIONS: Final = (
    "--headless",
    "--remote-debugging-pipe",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-default-apps",
    "--disable-dev-shm-usage",
    "--disable-extensions",
    "--disable-gpu",
    "--disable-sync",
    "--force-color-profile=srgb",
    "--hide-scrollbars",
    "--mute-audio",
    "--no-default-browser-check",
    "--no-first-run",
)
_OFFLINE: Final = "--host-resolver-rules=MAP * ~NOTFOUND"  # of names and of addresses


class NoPicture(GatewayError):
    """The browser is missing, does not start, or takes too long. The text says which, and what to do."""


@dataclass(frozen=True, slots=True)
class Shot:
    """How to look. `is_dark`: as a mail client in its dark mode: `prefers-color-scheme` says so, and what has no dark
    style of its own gets dark colours by force.
    """

    width: int
    is_dark: bool = False


@dataclass(frozen=True, slots=True)
class Taken:
    """`png`: the whole page, as wide as wanted. `needs`: how wide the page would have to be to show all of it."""

    png: bytes = field(repr=False)
    needs: int


def find(named: str | None = None) -> list[str]:
    """Return the browsers to try, the best first: the one named, or all that are installed. Raises NoPicture."""
    if named is not None:
        if (found := shutil.which(named)) is None:
            raise NoPicture(f"there is no program {named}")
        return [found]
    if not (installed := [path for name in NAMES if (path := shutil.which(name)) is not None]):
        raise NoPicture(
            f"no browser for the picture: none of {', '.join(NAMES)} is installed;"
            " on Debian: apt-get install chromium-headless-shell; or name one with --browser PROGRAM"
        )
    return installed


def take(
    html: str, shots: list[Shot], browsers: list[str], *, remote: bool = False, timeout: float = 60
) -> list[Taken]:
    """Return a picture for each shot. `timeout`: seconds for all of them together. Raises NoPicture.

    `remote`: the page may load from the network what its own policy allows. The first browser that starts is used.
    """
    until = time.monotonic() + timeout
    for number, browser in enumerate(browsers):
        try:
            with _running(browser, remote, until) as dialog:
                page = _Page(dialog, html)
                return [page.take(shot) for shot in shots]
        except _NotStarted as error:
            if number == len(browsers) - 1:
                raise NoPicture(str(error)) from None
    raise NoPicture("no browser for the picture")


class _NotStarted(Exception):
    """It has not said a word: perhaps another one does."""


class _Dialog:
    """Commands to the browser, one at a time, each with its answer."""

    def __init__(self, browser: str, read: int, write: int, until: float) -> None:
        self._browser, self._read, self._write, self._until = browser, read, write, until
        self._rest = b""
        self._number = 0
        self.has_answered = False

    def ask(self, method: str, session: str | None = None, /, **parameters: Any) -> Mapping[str, Any]:
        self._number += 1
        command: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            command["sessionId"] = session
        self._send(json.dumps(command).encode() + b"\0")
        while True:
            found = json.loads(self._next())
            if found.get("id") == self._number:
                self.has_answered = True
                if "error" in found:
                    raise NoPicture(f"{self._browser} does not know {method}: {found['error'].get('message')}")
                result: Mapping[str, Any] = found["result"]
                return result

    def _send(self, octets: bytes) -> None:
        view = memoryview(octets)
        while view:
            self._wait([], [self._write])
            with suppress(BlockingIOError):
                try:
                    view = view[os.write(self._write, view) :]
                except BrokenPipeError:
                    raise self._gone() from None

    def _next(self) -> bytes:
        while b"\0" not in self._rest:
            self._wait([self._read], [])
            octets = os.read(self._read, 1 << 20)
            if not octets:
                raise self._gone()
            self._rest += octets
        one, _, self._rest = self._rest.partition(b"\0")
        return one

    def _wait(self, reading: list[int], writing: list[int]) -> None:
        left = self._until - time.monotonic()
        if left <= 0 or not any(select.select(reading, writing, [], left)):
            raise NoPicture(f"{self._browser} has not finished the picture in time")

    def _gone(self) -> Exception:
        return NoPicture(f"{self._browser} has ended in the middle") if self.has_answered else _NotStarted()


class _Page:
    """One tab with the page in it."""

    def __init__(self, dialog: _Dialog, html: str) -> None:
        self._dialog = dialog
        target = dialog.ask("Target.createTarget", url="about:blank")["targetId"]
        self._session = dialog.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self._ask("Emulation.setScriptExecutionDisabled", value=True)
        frame = self._ask("Page.getFrameTree")["frameTree"]["frame"]["id"]
        self._ask("Page.setDocumentContent", frameId=frame, html=html)

    def _ask(self, method: str, **parameters: Any) -> Mapping[str, Any]:
        return self._dialog.ask(method, self._session, **parameters)

    def take(self, shot: Shot) -> Taken:
        scheme = {"name": "prefers-color-scheme", "value": "dark" if shot.is_dark else "light"}
        self._ask("Emulation.setDeviceMetricsOverride", width=shot.width, height=300, deviceScaleFactor=1, mobile=False)
        self._ask("Emulation.setEmulatedMedia", media="screen", features=[scheme])
        self._ask("Emulation.setAutoDarkModeOverride", enabled=shot.is_dark)
        self._ask("Runtime.evaluate", expression=_LOADED, awaitPromise=True)
        size = self._ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": shot.width, "height": min(size["height"], TALLEST), "scale": 1}
        found = self._ask("Page.captureScreenshot", format="png", captureBeyondViewport=True, clip=clip)
        return Taken(base64.b64decode(found["data"]), round(size["width"]))


# Ours, not the page's, which may run none: it waits until every picture is there or is known not to come
_LOADED: Final = "Promise.all(Array.from(document.images, image => image.decode().catch(() => null))).then(() => 0)"


@contextmanager
def _running(browser: str, remote: bool, until: float) -> Iterator[_Dialog]:
    """Yield the dialog with a browser that is gone afterwards, with every process and file of it."""
    with tempfile.TemporaryDirectory(prefix="mail-gateway-browser-", ignore_cleanup_errors=True) as directory:
        words = Path(directory) / "stderr"
        command = [browser, *_OPTIONS, f"--user-data-dir={directory}/profile"]
        command += [] if remote else [_OFFLINE]
        command += ["--no-sandbox"] if runs_without_sandbox() else []
        to_browser, ours_to_write = _pipe()
        ours_to_read, from_browser = _pipe()
        os.set_blocking(ours_to_write, False)
        try:
            try:
                pid = os.posix_spawn(
                    browser,
                    command,
                    os.environ,
                    file_actions=[
                        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                        (os.POSIX_SPAWN_OPEN, 1, str(words), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600),
                        (os.POSIX_SPAWN_DUP2, 1, 2),
                        (os.POSIX_SPAWN_DUP2, to_browser, 3),
                        (os.POSIX_SPAWN_DUP2, from_browser, 4),
                    ],
                    setpgroup=0,
                )
            except OSError as error:
                raise NoPicture(f"{browser} cannot be started: {error.strerror}") from None
            finally:
                os.close(to_browser)
                os.close(from_browser)
            try:
                yield _Dialog(browser, ours_to_read, ours_to_write, until)
            except _NotStarted:
                raise _NotStarted(f"{browser} does not start: {_last_words(words)}") from None
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
                os.waitpid(pid, 0)
        finally:
            os.close(ours_to_read)
            os.close(ours_to_write)


def runs_without_sandbox() -> bool:
    """Chromium's sandbox does not work for root."""
    return os.geteuid() == 0


def _pipe() -> tuple[int, int]:
    """Return both ends, above the descriptors that the browser wants, and closed in every other child."""
    ends = os.pipe()
    moved = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, _LOW_DESCRIPTORS) for end in ends)
    for end in ends:
        os.close(end)
    return moved[0], moved[1]


def _last_words(path: Path) -> str:
    try:
        lines = [line for line in path.read_text(errors="replace").splitlines() if line.strip()]
    except OSError:
        lines = []
    told = [line for line in lines if "sandbox" in line.lower() or "FATAL" in line] or lines
    return " ".join(told[-1].split())[:300] if told else "it ended without a word"
