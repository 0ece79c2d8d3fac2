"""A Dovecot whose mailboxes answer by themselves: Pigeonhole's `vacation` (RFC 5230, with seconds of RFC 6131)."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tests.support.authority import Pair
from tests.support.dovecot import Dovecot

_CONFIG = """\
protocol lmtp {{
  mail_plugins = sieve
}}
plugin {{
  sieve = file:~/.sieve;active=~/.dovecot.sieve
  sieve_extensions = +vacation-seconds
  sieve_vacation_min_period = 1s
}}
submission_host = 127.0.0.1:{port}
"""

_SCRIPT = """\
require ["vacation", "vacation-seconds"];
vacation :seconds {every} :addresses ["{address}"] :subject "On holiday" "I am away and shall answer later.";
"""


class Pigeonhole(Dovecot):
    """Answers leave through the SMTP server at `let_answer(port, …)`; call it before `start()`."""

    def __init__(self, users: Mapping[str, str], pair: Pair) -> None:
        super().__init__(users, pair)

    def let_answer(self, smtp_port: int, addresses: Mapping[str, int]) -> None:
        """`addresses`: whose mailbox answers, and how many seconds it remembers whom it has answered."""
        with self._config.open("a") as config:
            config.write(_CONFIG.format(port=smtp_port))
        for address, every in addresses.items():
            home = self._mail / address
            home.mkdir(parents=True, exist_ok=True)
            script = home / ".dovecot.sieve"
            script.write_text(_SCRIPT.format(every=every, address=address))
            for path in (home, script):
                os.chown(path, *self._owner)
