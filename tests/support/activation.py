"""systemd's part in socket activation, as a program: opens sockets, hands them over as sd_listen_fds(3) says.

    python tests/support/activation.py PORT[,PORT] NAMES COMMAND …

NAMES is the value of LISTEN_FDNAMES, "-" for none. The sockets become descriptors 3, 4 … of COMMAND.
"""

from __future__ import annotations

import os
import socket
import sys


def main(ports: str, names: str, *command: str) -> None:
    opened = [socket.create_server(("127.0.0.1", int(port))) for port in ports.split(",") if port]
    copies = [os.dup(each.fileno()) for each in opened for _ in range(8)][7::8]  # clear of 3, 4 …
    for number, copy in enumerate(copies):
        os.dup2(copy, 3 + number)
    for descriptor in range(3 + len(copies), max(copies, default=2) + 1):
        os.close(descriptor)
    os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(copies))}
    if names != "-":
        os.environ["LISTEN_FDNAMES"] = names
    os.execvp(command[0], command)


if __name__ == "__main__":
    main(*sys.argv[1:])
