"""A private Cyrus IMAP server: IMAP in the clear and over TLS, LMTP, IDLE, special-use folders. Never runs as root.

Debian does not let Cyrus be installed beside Dovecot, so `tests/setup/peers` only takes its packages apart, into
`build/peers/cyrus`. Each server here runs from a copy that its user can read.
"""

from __future__ import annotations

import contextlib
import grp
import imaplib
import os
import pwd
import re
import shutil
import smtplib
import socket
import struct
import tempfile
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tests.support.authority import Pair
from tests.support.mailboxes import Mailboxes
from tests.support.ports import free_port
from tests.support.process import Process
from tests.support.waiting import wait_until

UNPACKED = Path(__file__).parents[2] / "build" / "peers" / "cyrus"
ADMIN = "cyrus-admin"
_PROGRAMS = ("master", "imapd", "lmtpd", "idled", "ctl_cyrusdb", "reconstruct")

_IMAPD = """\
configdirectory: {home}/conf
partition-default: {home}/spool
proc_path: {home}/run/proc
mboxname_lockpath: {home}/run/lock
cyrus_user: {user}
cyrus_group: {group}
admins: {admin}
servername: localhost
virtdomains: userid
defaultdomain: internal.example
unixhierarchysep: yes
altnamespace: yes
allowplaintext: yes
sasl_pwcheck_method: saslauthd
sasl_saslauthd_path: {home}/run/mux
sasl_mech_list: PLAIN LOGIN
tls_server_cert: {home}/cert.pem
tls_server_key: {home}/key.pem
tls_session_timeout: 0
duplicatesuppression: no
skiplist_unsafe: yes
failedloginpause: 0
"""
# Cyrus must not drop a second mail for its Message-ID (duplicatesuppression): telling twins apart is our work

_CYRUS = """\
START {{
    recover cmd="{bin}/ctl_cyrusdb -C {conf} -r"
}}
SERVICES {{
    imap cmd="{bin}/imapd -C {conf}" listen="127.0.0.1:{imap_port}" proto="tcp4" prefork=1
    imaps cmd="{bin}/imapd -C {conf} -s" listen="127.0.0.1:{imaps_port}" proto="tcp4" prefork=1
    lmtp cmd="{bin}/lmtpd -C {conf} -a" listen="127.0.0.1:{lmtp_port}" proto="tcp4" prefork=0
}}
DAEMON {{
    idled cmd="{bin}/idled -C {conf}"
}}
"""


class Cyrus(Mailboxes):
    """`users`: login → password. Mailboxes outlive `stop()` and `start()`, as a provider's do; `close()` ends all."""

    def __init__(self, users: Mapping[str, str], pair: Pair) -> None:
        self.users = {**users, ADMIN: "secret of the admin"}
        self.imap_port, self.imaps_port, self.lmtp_port = free_port(), free_port(), free_port()
        if not (UNPACKED / "usr/lib/cyrus/bin/imapd").exists():
            raise RuntimeError("Cyrus IMAP is not unpacked; run: make peers")
        root = os.geteuid() == 0
        me = pwd.getpwnam("nobody") if root else pwd.getpwuid(os.geteuid())
        self._home = home = Path(tempfile.mkdtemp(prefix="cyrus-"))  # a short path: sockets live under it
        home.chmod(0o755)
        self._bin, self._lib = home / "bin", home / "lib"
        for directory in ("bin", "lib", "conf", "conf/socket", "spool", "run"):
            (home / directory).mkdir()
        for name in _PROGRAMS:
            shutil.copy(UNPACKED / "usr/lib/cyrus/bin" / name, self._bin)
        for library in UNPACKED.glob("usr/lib/*/libcyrus*.so.0"):
            shutil.copy(library, self._lib)
        for source, name in ((pair.certificate, "cert.pem"), (pair.private_key, "key.pem")):
            shutil.copyfile(source, home / name)
        group = grp.getgrgid(me.pw_gid).gr_name
        conf = home / "imapd.conf"
        conf.write_text(_IMAPD.format(home=home, user=me.pw_name, group=group, admin=ADMIN))
        (home / "cyrus.conf").write_text(
            _CYRUS.format(
                bin=self._bin,
                conf=conf,
                imap_port=self.imap_port,
                imaps_port=self.imaps_port,
                lmtp_port=self.lmtp_port,
            )
        )
        self._command = [
            *("env", f"LD_LIBRARY_PATH={self._lib}"),
            *(
                str(self._bin / "master"),
                "-C",
                str(conf),
                "-M",
                str(home / "cyrus.conf"),
                "-p",
                f"{home}/run/pid",
                "-D",
            ),
        ]
        if root:  # the second --pdeathsig: a change of user takes back the first
            for directory, _, names in os.walk(home):
                for path in (directory, *(os.path.join(directory, name) for name in names)):
                    os.chown(path, me.pw_uid, me.pw_gid)
            who = ("--reuid", me.pw_name, "--regid", group, "--clear-groups")
            self._command = ["setpriv", *who, "--pdeathsig", "KILL", "--", *self._command]
        self.log = home / "master.log"
        self._process: Process | None = None
        self._admin: imaplib.IMAP4 | None = None
        self._accounts: set[str] = set()
        self._lock = threading.Lock()
        self._doorman = _Doorman(home / "run" / "mux", self.users)

    def start(self) -> None:
        assert self._process is None
        self._process = Process(self._command, self.log)
        for port in (self.imap_port, self.imaps_port, self.lmtp_port):
            self._process.wait_for_port(port)
        # The services listen before the databases are recovered, and IDLE is offered once idled is there
        wait_until(self._offers_idle, "Cyrus offers IDLE", state=lambda: self.log.read_text(errors="replace"))
        for user in self.users:
            self._make_account(user)

    def _offers_idle(self) -> bool:
        with contextlib.suppress(OSError), self.session(ADMIN) as imap:
            return "IDLE" in str(imap.capability()[1])
        return False

    def stop(self) -> None:
        """As a provider's outage: sessions are cut, ports are closed, mailboxes stay."""
        with self._lock:
            if self._admin is not None:
                self._admin.shutdown()
                self._admin = None
            if self._process is not None:
                self._process.stop()
                self._process = None

    def close(self) -> None:
        self.stop()
        self._doorman.close()
        shutil.rmtree(self._home, ignore_errors=True)

    def set_password(self, user: str, password: str) -> None:
        """From now on a login of `user` needs `password`; a new user comes into being, with INBOX, Junk and Sent."""
        self.users[user] = password
        if self._process is not None:
            self._make_account(user)

    def add_users(self, users: Mapping[str, str]) -> None:
        for user, password in users.items():
            self.set_password(user, password)

    def _make_account(self, user: str) -> None:
        if user in self._accounts or user == ADMIN:
            return
        self._accounts.add(user)
        for folder, use in (("INBOX", ""), ("Junk", r"\Junk"), ("Sent", r"\Sent")):
            self._as_admin("CREATE", _mailbox(user, folder), *([f"(USE ({use}))"] if use else []))

    def create_folder(self, user: str, folder: str) -> None:
        self._as_admin("CREATE", _mailbox(user, folder))

    def _as_admin(self, *command: str) -> None:
        """Run a command over the one session of the administrator.

        Only it makes mailboxes: Cyrus names them at random, and processes that were started in the same second draw
        the same names.
        """
        with self._lock:
            if self._admin is None:
                self._admin = imaplib.IMAP4("127.0.0.1", self.imap_port, timeout=60)
                self._admin.login(ADMIN, self.users[ADMIN])
            status, data = self._admin._simple_command(*command)  # imaplib knows no CREATE … (USE …)
            assert status == "OK", (command, data)

    def deliver(self, user: str, *messages: bytes, sender: str = "customer@elsewhere.example") -> None:
        """Hand messages over by LMTP, as a provider's own delivery does: they are announced to whoever idles."""
        with smtplib.LMTP("127.0.0.1", self.lmtp_port) as lmtp:
            for raw in messages:
                lmtp.sendmail(sender, [user], raw)

    def seed(self, user: str, messages: Iterable[bytes]) -> int:
        """Put messages into the INBOX over one session, for large numbers. Returns how many."""
        with self.session(user) as imap:
            answers = [imap.append("INBOX", "", "", raw) for raw in messages]
        assert {status for status, _ in answers} <= {"OK"}, answers
        return len(answers)

    def renumber(self, user: str, folders: Sequence[str] = ("INBOX", "Junk", "Sent")) -> None:
        """Give folders a new UIDVALIDITY and their messages new UIDs; what they are, with date and marks, stays.

        As after a mailbox was restored: everything is read, the account is made anew, everything is put back.
        """
        kept = {folder: self._everything_in(user, folder) for folder in folders}
        self._as_admin("SETACL", _mailbox(user, "INBOX"), ADMIN, "lrswipkxtecdan")
        self._as_admin("DELETE", _mailbox(user, "INBOX"))  # and all folders with it
        self._accounts.discard(user)
        self._make_account(user)
        with self.session(user) as imap:
            for folder, messages in kept.items():
                if folder not in ("INBOX", "Junk", "Sent"):
                    self.create_folder(user, folder)
                for raw, date, flags in messages:
                    status, data = imap.append(f'"{folder}"', flags, f'"{date}"', raw)
                    assert status == "OK", data

    def _everything_in(self, user: str, folder: str) -> list[tuple[bytes, str, str]]:
        found = []
        with self.session(user, folder) as imap:
            for item in imap.fetch("1:*", "(INTERNALDATE FLAGS BODY.PEEK[])")[1]:
                if not isinstance(item, tuple):
                    continue
                about = item[0].decode()
                date, flags = re.search(r'INTERNALDATE "([^"]+)"', about), re.search(r"FLAGS \(([^)]*)\)", about)
                assert date, about
                assert flags, about
                found.append((item[1], date[1], flags[1].replace(r"\Recent", "").strip()))
        return found


def _mailbox(user: str, folder: str) -> str:
    """Return what an administrator calls somebody's folder."""
    name, _, domain = user.partition("@")
    return f'"user/{name}{"" if folder == "INBOX" else f"/{folder}"}@{domain}"'


class _Doorman:
    """Answers Cyrus's questions for passwords, in the words of saslauthd: four counted strings, an OK or a NO."""

    def __init__(self, path: Path, users: Mapping[str, str]) -> None:
        self._users = users
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        path.chmod(0o666)
        self._socket.listen(50)
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept()
        self._socket.close()

    def _serve(self) -> None:
        while True:
            try:
                asker, _ = self._socket.accept()
            except OSError:
                return
            with asker, contextlib.suppress(OSError, struct.error):
                asker.settimeout(10)
                stream = asker.makefile("rb")
                login, password, _, realm = (
                    stream.read(*struct.unpack("!H", stream.read(2))).decode() for _ in range(4)
                )
                user = f"{login}@{realm}" if realm and "@" not in login else login
                answer = b"OK" if self._users.get(user) == password else b"NO"
                asker.sendall(struct.pack("!H", len(answer)) + answer)
