"""A private Dovecot: IMAP in the clear and over TLS, LMTP, and logins for a Postfix. Runs as root or as anybody."""

from __future__ import annotations

import contextlib
import grp
import os
import pwd
import shutil
import smtplib
import subprocess
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.support.authority import Pair
from tests.support.mailboxes import Mailboxes
from tests.support.ports import free_port
from tests.support.process import Process, program
from tests.support.waiting import wait_until

_CONFIG = """\
base_dir = {run}
state_dir = {run}/state
log_path = {log}
instance_name = {instance}
protocols = imap lmtp
listen = 127.0.0.1
default_internal_user = {internal}
default_internal_group = {internal_group}
default_login_user = {login}
first_valid_uid = {first_uid}
first_valid_gid = 0
mail_location = maildir:~/Maildir
mail_fsync = never
mail_max_userip_connections = 1000
mailbox_idle_check_interval = 2 secs
auth_mechanisms = plain login
auth_failure_delay = 0
disable_plaintext_auth = no
auth_verbose = yes
postmaster_address = postmaster@example.com
shutdown_clients = yes
ssl = yes
ssl_cert = <{certificate}
ssl_key = <{private_key}
passdb {{
  driver = passwd-file
  args = scheme=plain username_format=%u {users}
}}
userdb {{
  driver = static
  args = uid={uid} gid={gid} home={mail}/%u
}}
service imap-login {{
  chroot =
  process_min_avail = 1
  service_count = 0
  client_limit = 1000
  inet_listener imap {{
    port = {imap_port}
  }}
  inet_listener imaps {{
    port = {imaps_port}
    ssl = yes
  }}
}}
service imap {{
  process_limit = 1000
}}
service lmtp {{
  user = {lmtp_user}
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp_port}
  }}
}}
service auth {{
  inet_listener {{
    address = 127.0.0.1
    port = {auth_port}
  }}
  client_limit = 4000
}}
service anvil {{
  chroot =
  client_limit = 4000
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
namespace inbox {{
  inbox = yes
  mailbox Junk {{
    auto = create
    special_use = \\Junk
  }}
  mailbox Sent {{
    auto = create
    special_use = \\Sent
  }}
}}
"""


# mailbox_idle_check_interval: the kernel gives one user 128 inotify instances; a session without one only looks


class Dovecot(Mailboxes):
    """`users`: login → password. Mailboxes outlive `stop()` and `start()`, as a provider's do; `close()` ends all."""

    def __init__(self, users: Mapping[str, str], pair: Pair) -> None:
        self.users = dict(users)
        self.imap_port, self.imaps_port = free_port(), free_port()
        self.lmtp_port, self.auth_port = free_port(), free_port()
        self._dovecot = program("dovecot", "dovecot-imapd dovecot-lmtpd")
        # A short path: sockets live under it. Mail processes run as another user when we are root
        self._home = Path(tempfile.mkdtemp(prefix="dovecot-"))
        self._home.chmod(0o755)
        self._process: Process | None = None
        root = os.geteuid() == 0
        me = pwd.getpwuid(os.geteuid()).pw_name
        owner = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
        self._owner = owner.pw_uid, owner.pw_gid
        self._mail = self._home / "mail"
        for directory in (self._mail, self._home / "run", self._home / "run" / "state"):
            directory.mkdir()
        os.chown(self._mail, *self._owner)
        for source, name in ((pair.certificate, "cert.pem"), (pair.private_key, "key.pem")):
            shutil.copyfile(source, self._home / name)
        self.log = self._home / "dovecot.log"
        self._write_users()
        self._config = self._home / "dovecot.conf"
        self._config.write_text(
            _CONFIG.format(
                run=self._home / "run",
                log=self.log,
                instance=self._home.name,
                internal="dovecot" if root else me,
                internal_group="dovecot" if root else grp.getgrgid(os.getegid()).gr_name,
                login="dovenull" if root else me,
                lmtp_user="root" if root else me,
                first_uid=min(self._owner[0], 500),
                certificate=self._home / "cert.pem",
                private_key=self._home / "key.pem",
                users=self._home / "users",
                uid=self._owner[0],
                gid=self._owner[1],
                mail=self._mail,
                imap_port=self.imap_port,
                imaps_port=self.imaps_port,
                lmtp_port=self.lmtp_port,
                auth_port=self.auth_port,
            )
        )

    def offer(self, capabilities: str) -> None:
        """From the next start on, say that only these extensions are known; what is not offered is not to be used."""
        with self._config.open("a") as config:
            config.write(f"imap_capability = {capabilities}\n")

    def start(self) -> None:
        assert self._process is None
        self._process = Process([self._dovecot, "-F", "-c", str(self._config)], self.log)
        for port in (self.imap_port, self.imaps_port, self.lmtp_port):
            self._process.wait_for_port(port)

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def stop(self) -> None:
        """As a provider's outage: sessions are cut, ports are closed, mailboxes stay."""
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)

    def set_password(self, user: str, password: str) -> None:
        """From now on a login of `user` needs `password`; a new user comes into being."""
        if self.users.get(user) == password:
            return
        self.users[user] = password
        self._write_users()
        if self._process is not None:  # Dovecot looks at the file once a second at most
            wait_until(lambda: self.lets_in(user, password), "Dovecot has read its users again")

    def add_users(self, users: Mapping[str, str]) -> None:
        *others, (last, password) = users.items()
        self.users |= others
        self.set_password(last, password)

    def _write_users(self) -> None:
        text = "".join(f"{user}:{password}\n" for user, password in self.users.items())
        scratch = self._home / "users.new"
        scratch.write_text(text)
        scratch.chmod(0o644)
        scratch.replace(self._home / "users")

    def deliver(self, user: str, *messages: bytes, sender: str = "customer@elsewhere.example") -> None:
        """Hand messages over by LMTP, as a provider's own delivery does: they are announced to whoever idles."""
        with smtplib.LMTP("127.0.0.1", self.lmtp_port) as lmtp:
            for raw in messages:
                wait_until(lambda raw=raw: self._takes(lmtp, sender, user, raw), "the delivery is not put off")  # type: ignore[misc]  # mypy and lambdas

    @staticmethod
    def _takes(lmtp: smtplib.LMTP, sender: str, user: str, raw: bytes) -> bool:
        """Return whether it was delivered; put off (a mailbox that is just being changed) it is tried again."""
        try:
            lmtp.sendmail(sender, [user], raw)
        except smtplib.SMTPDataError as error:
            if error.smtp_code // 100 == 4:
                return False
            raise
        return True

    def seed(self, user: str, messages: Iterable[bytes]) -> int:
        """Lay messages straight into the Maildir, for large numbers. Returns how many."""
        maildir = self._mail / user / "Maildir"
        for part in ("cur", "new", "tmp"):
            (maildir / part).mkdir(parents=True, exist_ok=True)
        count = 0
        for count, raw in enumerate(messages, start=1):
            (maildir / "cur" / f"1700000000.M{count:09}.seed,S={len(raw)}:2,").write_bytes(raw)
        for directory, _, names in os.walk(self._mail / user):
            os.chown(directory, *self._owner)
            for name in names:
                os.chown(os.path.join(directory, name), *self._owner)
        return count

    def renumber(self, user: str, folders: Sequence[str] = ("INBOX",)) -> None:
        """Give folders a new UIDVALIDITY and their messages new UIDs in another order; what they are, with date and
        marks, stays. Sessions of this user are cut.
        """
        maildir = self._mail / user / "Maildir"
        aside = maildir.with_name("aside")
        self._kick(user)
        maildir.rename(aside)  # nobody may write into the indexes meanwhile
        for folder in folders:
            place = aside if folder == "INBOX" else aside / f".{folder}"
            for index in (*place.glob("dovecot-uidlist*"), *place.glob("dovecot.index*")):
                index.unlink()
            messages = sorted((*place.glob("cur/*"), *place.glob("new/*")), key=lambda message: message.name)
            for number, message in enumerate(reversed(messages)):
                about = message.name[message.name.find(",") :] if "," in message.name else ":2,"  # size and marks
                message.rename(message.with_name(f"17{number:08}.R{time.monotonic_ns()}{about}"))
        while aside.exists():
            shutil.rmtree(maildir, ignore_errors=True)  # whoever came in meanwhile found no mailbox and made one
            with contextlib.suppress(OSError):
                aside.rename(maildir)
        self._kick(user)  # whoever came in meanwhile holds files that are gone, and would never hear of new mail

    def _kick(self, user: str) -> None:
        """Cut a user's sessions."""
        if self._process is not None:
            kick = [program("doveadm", "dovecot-core"), "-c", str(self._config), "kick", user]
            subprocess.run(kick, check=False, capture_output=True)  # fails when nobody is there to be kicked


class PlainDovecot(Dovecot):
    """Offers what every server has and hardly more: no MOVE, no QRESYNC, no ESEARCH, no special-use."""

    def __init__(self, users: Mapping[str, str], pair: Pair) -> None:
        super().__init__(users, pair)
        self.offer("IMAP4rev1 SASL-IR ID IDLE UIDPLUS LITERAL+")
