"""A private Postfix as a provider's SMTP server: logins through a Dovecot, everything delivered into it by LMTP.

Its master needs root: run as root, or with passwordless sudo.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.authority import Pair
from tests.support.dovecot import Dovecot
from tests.support.ports import free_port
from tests.support.process import Process, program, wait_for_silence

_MAIN = """\
compatibility_level = 3.6
queue_directory = {queue}
data_directory = {data}
maillog_file = {log}
maillog_file_prefixes = {home}
syslog_name = postfix
myhostname = provider.example
mydestination =
mynetworks =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
alias_maps =
alias_database =
local_recipient_maps =
virtual_mailbox_domains = static:all
virtual_transport = lmtp:inet:127.0.0.1:{lmtp_port}
lmtp_destination_concurrency_limit = 5
disable_dns_lookups = yes
smtpd_peername_lookup = no
biff = no
in_flow_delay = 0
message_size_limit = 60000000
mailbox_size_limit = 0
queue_run_delay = 1s
minimal_backoff_time = 1s
maximal_backoff_time = 2s
smtpd_error_sleep_time = 0
smtpd_client_connection_count_limit = 0
smtpd_tls_security_level = may
smtpd_tls_cert_file = {certificate}
smtpd_tls_key_file = {private_key}
smtpd_tls_session_cache_database =
smtpd_sasl_type = dovecot
smtpd_sasl_path = inet:127.0.0.1:{auth_port}
smtpd_sasl_security_options = noanonymous
smtpd_relay_restrictions = permit_sasl_authenticated, reject_unauth_destination
smtpd_recipient_restrictions = check_recipient_access inline:{{ {{refused@clients.example = 550 5.1.1 no such person}} {{busy@clients.example = 450 4.2.1 mailbox busy}} }}, permit
"""  # noqa: E501

_SUBMISSION = "-o smtpd_sasl_auth_enable=yes -o smtpd_relay_restrictions=permit_sasl_authenticated,reject"

_MASTER = """\
127.0.0.1:{mx_port} inet n - n - - smtpd
127.0.0.1:{plain_port} inet n - n - - smtpd -o smtpd_tls_security_level=none {submission}
127.0.0.1:{starttls_port} inet n - n - - smtpd -o smtpd_tls_security_level=encrypt {submission}
127.0.0.1:{smtps_port} inet n - n - - smtpd -o smtpd_tls_wrappermode=yes {submission}
cleanup unix n - n - 0 cleanup
qmgr unix n - n 300 1 qmgr
tlsmgr unix - - n 1000? 1 tlsmgr
rewrite unix - - n - - trivial-rewrite
bounce unix - - n - 0 bounce
defer unix - - n - 0 bounce
trace unix - - n - 0 bounce
verify unix - - n - 1 verify
flush unix n - n 1000? 0 flush
proxymap unix - - n - - proxymap
lmtp unix - - n - - lmtp
smtp unix - - n - - smtp
error unix - - n - - error
retry unix - - n - - error
discard unix - - n - - discard
anvil unix - - n - 1 anvil
scache unix - - n - 1 scache
postlog unix-dgram n - n - 1 postlogd
"""


@dataclass(frozen=True)
class Accepted:
    """A message as Postfix took it: its queue id and who had logged in."""

    queue_id: str
    login: str


class Postfix:
    """`mx_port` takes mail for anybody here without a login; the others want one: in the clear, STARTTLS, TLS.

    To `refused@clients.example` it says 550, to `busy@clients.example` 450. What was accepted outlives `stop()`.
    """

    def __init__(self, dovecot: Dovecot, pair: Pair) -> None:
        self._postfix = program("postfix", "postfix")
        self._as_root = _as_root()
        self.mx_port, self.plain_port = free_port(), free_port()
        self.starttls_port, self.smtps_port = free_port(), free_port()
        self._home = Path(tempfile.mkdtemp(prefix="postfix-"))
        self._home.chmod(0o755)
        self._config = self._home / "etc"
        for name in ("etc", "queue", "data"):
            (self._home / name).mkdir()
        for source, name in ((pair.certificate, "cert.pem"), (pair.private_key, "key.pem")):
            shutil.copyfile(source, self._config / name)
        self.log = self._home / "postfix.log"
        self.log.touch()
        self.log.chmod(0o666)  # a start after a hard stop tidies its queue as another user, who may have to complain
        self._main = _MAIN.format(
            home=self._home,
            queue=self._home / "queue",
            data=self._home / "data",
            log=self.log,
            lmtp_port=dovecot.lmtp_port,
            auth_port=dovecot.auth_port,
            certificate=self._config / "cert.pem",
            private_key=self._config / "key.pem",
        )
        (self._config / "main.cf").write_text(self._main)
        (self._config / "master.cf").write_text(
            _MASTER.format(
                submission=_SUBMISSION,
                mx_port=self.mx_port,
                plain_port=self.plain_port,
                starttls_port=self.starttls_port,
                smtps_port=self.smtps_port,
            )
        )
        self._run("chown", "-R", "root", str(self._config))
        self._run("chown", "postfix", str(self._home / "data"))
        self._process: Process | None = None

    @property
    def _ports(self) -> tuple[int, ...]:
        return self.mx_port, self.plain_port, self.starttls_port, self.smtps_port

    def start(self) -> None:
        assert self._process is None
        command = [*self._as_root, self._postfix, "-c", str(self._config), "start-fg"]
        self._process = Process(command, self._home / "master.log")
        for port in self._ports:
            self._process.wait_for_port(port)

    def stop(self) -> None:
        """As a provider's outage: connections are cut, ports are closed, its own queue stays."""
        if self._process is not None:
            self._run(self._postfix, "-c", str(self._config), "abort", check=False)
            self._process.wait(15)
            self._process.stop()
            self._process = None
            for port in self._ports:  # the next start must not take what dies with this one for its own
                wait_for_silence(port)

    def close(self) -> None:
        self.stop()
        self._run("rm", "-rf", str(self._home), check=False)

    def set(self, **settings: str) -> None:
        """Configure it as usual but for these, as a provider does overnight: it is down for a moment."""
        was_running = self._process is not None
        self.stop()
        more = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self._config / "main.cf").write_text(self._main + more)
        if was_running:
            self.start()

    def handed_over(self) -> list[tuple[str, str]]:
        """Return (Message-ID, recipient) of all that was delivered into its Dovecot, in order, from its log."""
        ids: dict[str, str] = {}
        found = []
        for line in self._read_log().splitlines():
            queue_id, _, rest = line.partition("]: ")[2].partition(": ")
            if rest.startswith("message-id="):
                ids[queue_id] = rest.removeprefix("message-id=").strip()
            elif rest.startswith("to=<") and "status=sent" in rest:
                found.append((ids[queue_id], rest.removeprefix("to=<").partition(">")[0]))
        return found

    def routes(self) -> dict[str, list[str]]:
        """Return Message-ID → every recipient that it was to go to, whether it got there or not, from the log."""
        ids: dict[str, str] = {}
        found: dict[str, list[str]] = {}
        for line in self._read_log().splitlines():
            queue_id, _, rest = line.partition("]: ")[2].partition(": ")
            if rest.startswith("message-id="):
                ids[queue_id] = rest.removeprefix("message-id=").strip()
                found.setdefault(ids[queue_id], [])
            elif rest.startswith("to=<") and queue_id in ids:
                recipient = rest.removeprefix("to=<").partition(">")[0]
                if recipient not in found[ids[queue_id]]:
                    found[ids[queue_id]].append(recipient)
        return found

    def accepted(self) -> list[Accepted]:
        """Return what was taken from logged-in clients, in order, from its log."""
        found = []
        for line in self._read_log().splitlines():
            if "sasl_username=" in line and "client=" in line:
                queue_id = line.split("]: ", 1)[1].split(":", 1)[0]
                found.append(Accepted(queue_id, line.rsplit("sasl_username=", 1)[1].strip()))
        return found

    def is_empty(self) -> bool:
        """Whether everything that was accepted has been delivered or bounced."""
        queue = self._home / "queue"
        names = ("incoming", "active", "deferred", "maildrop")
        # A file that a hard stop left half written cannot be executed, and is nobody's mail
        output = self._run("find", *(str(queue / name) for name in names), "-type", "f", "-perm", "-u=x", check=False)
        return not output.strip()

    def log_tail(self, lines: int = 30) -> str:
        return "\n".join(self._read_log().splitlines()[-lines:])

    def _read_log(self) -> str:
        return self._run("cat", str(self.log), check=False)

    def _run(self, *command: str, check: bool = True) -> str:
        done = subprocess.run([*self._as_root, *command], capture_output=True, text=True, stdin=subprocess.DEVNULL)
        if check and done.returncode != 0:
            raise RuntimeError(f"{' '.join(command)} ended with {done.returncode}: {done.stderr}")
        return done.stdout


def _as_root() -> list[str]:
    if os.geteuid() == 0:
        return []
    sudo = shutil.which("sudo")
    if sudo and subprocess.run([sudo, "-n", "true"], capture_output=True).returncode == 0:
        return [sudo, "-n"]
    raise RuntimeError("a private Postfix needs root for its master process: run the tests as root or allow sudo")
