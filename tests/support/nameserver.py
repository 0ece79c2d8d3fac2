"""A private name server (NSD) that says it knows all of the DNS: what is not in its zone does not exist."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

from tests.support.ports import free_port, give_back
from tests.support.process import Process, program

_CONFIG = """\
server:
  ip-address: 127.0.0.1@{port}
  do-ip6: no
  server-count: 1
  username: ""
  chroot: ""
  zonesdir: "{home}"
  database: ""
  pidfile: ""
  logfile: "{home}/nsd.log"
  xfrdfile: ""
  xfrdir: "{home}"
  zonelistfile: "{home}/zone.list"
  verbosity: 1
remote-control:
  control-enable: no
zone:
  name: "."
  zonefile: "{home}/zone"
"""
_BROKEN = """\
zone:
  name: "{name}"
  zonefile: "{home}/there-is-no-such-file"
"""
_HEAD = """\
$ORIGIN .
$TTL 300
. IN SOA ns.invalid. hostmaster.invalid. 1 3600 600 86400 60
. IN NS ns.invalid.
"""


class NameServer:
    """`records`: lines of a zone file, names relative to the root. `broken`: domains that it answers with SERVFAIL."""

    def __init__(self, records: Iterable[str], broken: Iterable[str] = ()) -> None:
        self._home = Path(tempfile.mkdtemp(prefix="nsd-"))
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        (self._home / "zone").write_text(_HEAD + "\n".join(records) + "\n")
        config = _CONFIG.format(port=self.port, home=self._home)
        config += "".join(_BROKEN.format(name=name, home=self._home) for name in broken)
        (self._home / "nsd.conf").write_text(config)
        self._process: Process | None = None

    def start(self) -> None:
        log = self._home / "output"
        command = [program("nsd", "nsd"), "-d", "-c", str(self._home / "nsd.conf")]
        self._process = Process(command, log)
        self._process.wait_for_port(self.port)

    def freeze(self) -> None:
        """Let it be silent: questions reach its socket, and nobody answers."""
        self._signal_all(signal.SIGSTOP)

    def thaw(self) -> None:
        self._signal_all(signal.SIGCONT)

    def close(self) -> None:
        if self._process is not None:
            self.thaw()
            self._process.kill()
            self._process = None
        shutil.rmtree(self._home, ignore_errors=True)
        give_back(self.port)

    def _signal_all(self, number: signal.Signals) -> None:
        """NSD is several processes; all are in the group that is ours alone."""
        assert self._process is not None
        os.killpg(self._process.pid, number)


def silent_server() -> socket.socket:
    """Return a bound UDP socket that nobody reads from."""
    silent = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    silent.bind(("127.0.0.1", 0))
    return silent
