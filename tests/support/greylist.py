"""A greylist for Postfix (SMTPD_POLICY_README): who writes to somebody for the first time comes again after a while."""

from __future__ import annotations

import socketserver
import threading
import time

from tests.support.ports import free_port


class Greylist:
    """Puts off the first tries of each (sender, recipient) whose address begins with `grey`, for `seconds`."""

    def __init__(self, seconds: float, said: str) -> None:
        self.port = free_port()
        self.tries: dict[str, list[float]] = {}  # recipient → when
        greylist = self

        class Talk(socketserver.StreamRequestHandler):
            def handle(self) -> None:
                asked: dict[str, str] = {}
                for line in self.rfile:
                    name, is_pair, value = line.decode().strip().partition("=")
                    if is_pair:
                        asked[name] = value
                        continue
                    self.wfile.write(f"action={greylist._judge(asked, seconds, said)}\n\n".encode())
                    asked = {}

        self._server = socketserver.ThreadingTCPServer(("127.0.0.1", self.port), Talk)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def _judge(self, asked: dict[str, str], seconds: float, said: str) -> str:
        recipient = asked.get("recipient", "")
        if not recipient.startswith("grey"):
            return "DUNNO"
        tries = self.tries.setdefault(recipient, [])
        tries.append(time.monotonic())
        return "DUNNO" if tries[-1] - tries[0] >= seconds else f"450 {said}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
