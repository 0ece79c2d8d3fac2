"""A private rspamd with the rules that Debian ships, but for those which ask the network. Learns into SQLite."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import tempfile
from pathlib import Path

from tests.support.ports import free_port, give_back
from tests.support.process import Process, program

_CONFIG = Path("/etc/rspamd/rspamd.conf")

# What the network, or another service, would have to answer
_OFF = (
    *("rbl", "surbl", "fuzzy_check", "asn", "dkim", "spf", "dmarc", "arc", "mx_check", "phishing", "neural", "bimi"),
    *("greylist", "ratelimit", "reputation", "replies", "history_redis", "rspamd_update", "url_redirector"),
)
_OVERRIDES = {
    "options.inc": """\
dns {{ nameserver = ["127.0.0.1:1"]; timeout = 0.1s; retransmits = 1; sockets = 1; }}
control_socket = "{home}/run/control.sock mode=0600";
rrd = "";
filters = "chartable,regexp";
url_tld = "{home}/suffixes";  # compiling those of the whole world takes seven seconds
""",
    "worker-normal.inc": 'bind_socket = "127.0.0.1:{port}"; count = 1;',
    "worker-controller.inc": 'bind_socket = "127.0.0.1:{controller_port}"; count = 1; {secret}',
    "worker-proxy.inc": 'enabled = false; bind_socket = "127.0.0.1:{proxy_port}";',
    "logging.inc": 'level = "info";',
    "classifier-bayes.conf": """\
backend = "sqlite3";
min_learns = 2;
cache {{ path = "{home}/db/learned.sqlite"; }}
statfile {{ symbol = "BAYES_HAM"; spam = false; path = "{home}/db/ham.sqlite"; }}
statfile {{ symbol = "BAYES_SPAM"; spam = true; path = "{home}/db/spam.sqlite"; }}
""",
}


class Rspamd:
    """`port`: of the worker that scores; `controller_port`: of the one that learns. `password`: which that one wants.

    What it has learned outlives `stop()` and `kill()`; `close()` ends all.
    """

    def __init__(self, password: str = "") -> None:
        self.port, self.controller_port, self._proxy_port = free_port(), free_port(), free_port()
        self._program = program("rspamd", "rspamd")
        self._home = Path(tempfile.mkdtemp(prefix="rspamd-"))
        self._process: Process | None = None
        self.log = self._home / "log" / "rspamd.log"
        for name in ("run", "db", "log", "local.d", "override.d"):
            (self._home / name).mkdir()
        (self._home / "suffixes").write_text("com\nexample\n")
        # A password is asked of whoever is not on this list, and we come from 127.0.0.1
        secret = f'secure_ip = "192.0.2.1"; password = "{password}"; enable_password = "{password}";'
        values = {
            "home": self._home,
            "port": self.port,
            "controller_port": self.controller_port,
            "proxy_port": self._proxy_port,
            "secret": secret if password else 'secure_ip = "127.0.0.1"; password = "";',
        }
        for name, text in _OVERRIDES.items():
            (self._home / "override.d" / name).write_text(text.format(**values))
        for name in _OFF:
            (self._home / "override.d" / f"{name}.conf").write_text("enabled = false;\n")
        self._own()

    def _own(self) -> None:
        if os.geteuid() == 0:  # its workers run as somebody else
            owner = pwd.getpwnam("nobody")
            for directory, _, names in os.walk(self._home):
                for name in ("", *names):
                    os.chown(os.path.join(directory, name), owner.pw_uid, owner.pw_gid)

    @property
    def scanner(self) -> str:
        return f"rspamd+http://127.0.0.1:{self.port}"

    @property
    def teacher(self) -> str:
        return f"rspamd+http://127.0.0.1:{self.controller_port}"

    def start(self) -> None:
        assert self._process is None
        user = ["-i", "-u", "nobody", "-g", "nogroup"] if os.geteuid() == 0 else []
        places = {"LOCAL_CONFDIR": "", "RUNDIR": "/run", "DBDIR": "/db", "LOGDIR": "/log"}
        variables = [word for name, place in places.items() for word in ("--var", f"{name}={self._home}{place}")]
        self._process = Process([self._program, "-f", *user, "-c", str(_CONFIG), *variables], self._home / "output")
        for port in (self.port, self.controller_port):
            self._process.wait_for_port(port, 60)

    def _worker_pids(self) -> list[int]:
        assert self._process is not None
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text()
        return [int(pid) for pid in children.split()]

    def freeze(self) -> None:
        """It takes connections, for the kernel does, and says nothing any more."""
        for pid in self._worker_pids():
            os.kill(pid, signal.SIGSTOP)

    def thaw(self) -> None:
        for pid in self._worker_pids():
            os.kill(pid, signal.SIGCONT)

    def kill(self) -> None:
        """As a crash: at once, with all its workers."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self._home, ignore_errors=True)
        for port in (self.port, self.controller_port, self._proxy_port):
            give_back(port)
