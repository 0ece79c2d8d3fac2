"""The demo's installation: two configuration files in a temporary directory, and the real daemon run on them.

Written as an operator and an admin would write them, so that they can be read as an example; only the passwords are
made up anew each time, because everybody on this machine can reach a loopback port.
"""

from __future__ import annotations

import os
import secrets
import smtplib
import socket
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from email.message import EmailMessage
from pathlib import Path
from typing import Any, Final

from argon2 import PasswordHasher

from gateway import control_client
from gateway.demo.provider import HOST, Account, ProviderThread

SUPPORT: Final = "support@shop.example"
SALES: Final = "sales@shop.example"
CARLA: Final = "carla@customer.example"
DARIO: Final = "dario@customer.example"

# What would lead the daemon or a command elsewhere than to this site
_FOREIGN: Final = ("MAIL_GATEWAY_CONFIG", "RUNTIME_DIRECTORY", "NOTIFY_SOCKET", "LISTEN_PID", "LISTEN_FDS")

_GATEWAY: Final = """\
# How the daemon runs (operator)
hostname  = "gateway.shop.example"
state_dir = "state"

[submission]
listen = ["smtp+insecure://{host}:{submission_port}"]   # loopback only; anywhere else it would be smtps://

[imap]
listen = []

[http]
listen = ""

[inbound]
authentication = "provider"   # nobody's name here is in the DNS

[queues]
names = ["support", "billing", "sales"]

[log]
format = "json"
"""

_RULES: Final = """\
# What happens to mail (admin)

[[touchpoint]]
id            = "support"
address       = "{support}"
name          = "Shop Support"
active        = true
imap          = "imap+insecure://{host}:{imap_port}"
smtp          = "smtp+insecure://{host}:{smtp_port}"
password      = "file:secrets/support"
linked_queues = ["support"]

[touchpoint.signature]
active = true
html   = "file:signatures/support.html"
text   = "file:signatures/support.txt"

[touchpoint.auto_reply]
active  = true
subject = "Auto: {{{{ subject }}}}"
html    = "<p>Dear {{{{ sender.name | default('customer') }}}},</p><p>your mail is with {{{{ touchpoint.name }}}}.</p>"

[[touchpoint]]
id            = "sales"
address       = "{sales}"
name          = "Shop Sales"
active        = true
imap          = "imap+insecure://{host}:{imap_port}"
smtp          = "smtp+insecure://{host}:{smtp_port}"
password      = "file:secrets/sales"
linked_queues = ["sales"]

[touchpoint.signature]
active = true
text   = "{{{{ agent.name }}}}, {{{{ touchpoint.name }}}}"

[[agent]]
login         = "ana@shop.example"
name          = "Ana Lima"
ring_groups   = ["support", "billing"]
password_hash = "{ana_hash}"
variables     = {{ title = "Support engineer" }}

[[agent]]
login         = "bruno@shop.example"
name          = "Bruno Reis"
ring_groups   = ["sales"]
password_hash = "{bruno_hash}"
variables     = {{ title = "Sales" }}

[[rule]]
name = "invoices"
if   = {{ subject = ["*invoice*", "*factura*"], class = "human" }}
then = {{ queue = "billing", priority = "high", tags = ["invoice"] }}
"""

SIGNATURE_TEXT: Final = """\
{{ agent.name }}, {{ agent.title }}
{{ touchpoint.name }} <{{ touchpoint.address }}>
"""

_SIGNATURE_HTML: Final = """\
<p><b>{{ agent.name }}</b>, {{ agent.title }}<br>
{{ touchpoint.name }} &lt;{{ touchpoint.address }}&gt;</p>
"""


@dataclass(frozen=True, slots=True)
class Agent:
    login: str
    name: str
    password: str = field(default_factory=lambda: secrets.token_urlsafe(9), repr=False)


def accounts() -> tuple[Account, ...]:
    """Return the mailboxes that the provider is to have: two touchpoints, two customers."""
    return tuple(Account(address) for address in (SUPPORT, SALES, CARLA, DARIO))


class Site:
    """One installation in `home`: its files, its daemon, its commands."""

    def __init__(self, home: Path, provider: ProviderThread) -> None:
        self.home = home
        self.ana = Agent("ana@shop.example", "Ana Lima")
        self.bruno = Agent("bruno@shop.example", "Bruno Reis")
        self.config: Final = home / "gateway.toml"
        self.log: Final = home / "daemon.log"
        self.submission_port: Final = _free_port()
        self._environment = {name: value for name, value in os.environ.items() if name not in _FOREIGN}
        self._daemon: subprocess.Popen[bytes] | None = None
        self._write(provider)

    def _write(self, provider: ProviderThread) -> None:
        hash_password = PasswordHasher().hash
        for folder in ("state", "secrets", "signatures"):
            (self.home / folder).mkdir(mode=0o700)
        for account in provider.accounts:
            if account.address in (SUPPORT, SALES):
                secret = self.home / "secrets" / account.address.partition("@")[0]
                secret.touch(mode=0o600)
                secret.write_text(account.password + "\n")
        (self.home / "signatures" / "support.html").write_text(_SIGNATURE_HTML)
        (self.home / "signatures" / "support.txt").write_text(SIGNATURE_TEXT)
        self.config.write_text(_GATEWAY.format(host=HOST, submission_port=self.submission_port))
        (self.home / "rules.toml").write_text(
            _RULES.format(
                support=SUPPORT,
                sales=SALES,
                host=HOST,
                imap_port=provider.imap_port,
                smtp_port=provider.smtp_port,
                ana_hash=hash_password(self.ana.password),
                bruno_hash=hash_password(self.bruno.password),
            )
        )

    # --- the daemon --------------------------------------------------------------------------------------------------

    def start(self) -> None:
        with self.log.open("ab") as log:
            self._daemon = subprocess.Popen(
                [sys.executable, "-m", "gateway", "run", "--config", str(self.config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=self._environment,
                start_new_session=True,  # a Ctrl-C is for the demo, which then stops the daemon as systemd would
            )

    def exit_code(self) -> int | None:
        """Return the daemon's exit code, None while it runs."""
        return None if self._daemon is None else self._daemon.poll()

    def stop(self, within: float = 30) -> int:
        """SIGTERM, as systemd would; return the exit code."""
        if self._daemon is None:
            return 0
        self._daemon.terminate()
        try:
            return self._daemon.wait(within)
        except subprocess.TimeoutExpired:
            self._daemon.kill()
            return self._daemon.wait()

    def complaints(self, most: int = 12) -> list[str]:
        """Return the last lines of the daemon's log, warnings and worse before anything else."""
        lines = self.log.read_text(errors="replace").splitlines() if self.log.exists() else []
        serious = [line for line in lines if '"level": "info"' not in line]
        return (serious or lines)[-most:]

    # --- asking it ---------------------------------------------------------------------------------------------------

    def ask(self, command: str, **arguments: object) -> Any:
        """Ask over the control socket, as a command does, without the cost of an interpreter; for waiting."""
        return control_client.ask(self.home / "state" / "control.sock", command, arguments, timeout=10)

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one `mail-gateway` command."""
        return subprocess.run(
            [sys.executable, "-m", "gateway", *words, "--config", str(self.config)],
            env=self._environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )

    # --- an agent's mail client --------------------------------------------------------------------------------------

    def submit(self, agent: Agent, message: EmailMessage, recipients: Iterable[str]) -> str:
        """Send as a mail client does; return the gateway's answer to the message. Raises smtplib.SMTPException."""
        with smtplib.SMTP(HOST, self.submission_port, "laptop.shop.example", timeout=30) as client:
            client.login(agent.login, agent.password)
            for code, reply in (
                client.mail(message["From"].addresses[0].addr_spec),
                *(client.rcpt(recipient) for recipient in recipients),
                client.data(message.as_bytes(policy=message.policy.clone(linesep="\r\n"))),
            ):
                if code != 250:
                    raise smtplib.SMTPResponseException(code, reply)
            return f"{code} {reply.decode(errors='replace')}"


def _free_port() -> int:
    with socket.create_server((HOST, 0)) as probe:
        port: int = probe.getsockname()[1]
        return port
