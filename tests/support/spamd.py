"""A private SpamAssassin with the rules that Debian ships, without the network. Learns into its own files."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
from pathlib import Path

from tests.support.ports import free_port, give_back
from tests.support.process import Process, program

_PEER = Path(__file__).parents[2] / "build" / "peers" / "spamassassin"  # tests/setup/peers has unpacked it
_CONFIG = """\
use_bayes 1
bayes_path {home}/bayes
bayes_min_spam_num 2
bayes_min_ham_num 2
bayes_auto_learn 0
"""


class Spamd:
    """What it has learned outlives `stop()`; `close()` ends all. `may_learn`: as with `--allow-tell`."""

    def __init__(self, may_learn: bool = True) -> None:
        self.port = free_port()
        self._may_learn = may_learn
        self._perl = program("perl", "perl")
        if not (_PEER / "usr/sbin/spamd").exists():
            raise RuntimeError(f"{_PEER} is not there; run: make peers")
        # Its children run as somebody else, who may not be let into where we are
        self._home = Path(tempfile.mkdtemp(prefix="spamd-"))
        self._home.chmod(0o755)
        self._process: Process | None = None
        for name in ("usr/share/perl5", "usr/share/spamassassin", "etc/spamassassin"):
            shutil.copytree(_PEER / name, self._home / name)
        site = self._home / "etc/spamassassin"
        (site / "local.cf").write_text(_CONFIG.format(home=self._home))
        if os.geteuid() == 0:
            owner = pwd.getpwnam("nobody")
            os.chown(self._home, owner.pw_uid, owner.pw_gid)
        os.chmod(self._home, 0o755)

    @property
    def scanner(self) -> str:
        return f"spamd://127.0.0.1:{self.port}"

    def start(self) -> None:
        assert self._process is None
        home = self._home
        self._process = Process(
            [
                *(self._perl, "-T", f"-I{home}/usr/share/perl5", str(_PEER / "usr/sbin/spamd")),
                *("--local", "--nouser-config", "--max-children=2", "--min-children=1", "--syslog=stderr"),
                *(f"--listen=127.0.0.1:{self.port}", f"--pidfile={home}/pid", f"--helper-home-dir={home}"),
                *(f"--configpath={home}/usr/share/spamassassin", f"--siteconfigpath={home}/etc/spamassassin"),
                *(["--username=nobody"] if os.geteuid() == 0 else []),
                *(["--allow-tell"] if self._may_learn else []),
            ],
            home / "log",
        )
        self._process.wait_for_port(self.port, 60)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def close(self) -> None:
        self.stop()
        shutil.rmtree(self._home, ignore_errors=True)
        give_back(self.port)
