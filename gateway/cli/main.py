"""The parser, and the one place that turns what went wrong into a line on stderr and an exit code."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from gateway.cli import (
    agent,
    auto_reply,
    backup,
    block,
    daemon,
    explain,
    outbox,
    quarantine,
    queue,
    render,
    rules,
    touchpoint,
    trace,
)
from gateway.errors import CommandError, ConfigError, GatewayError

DEFAULT_CONFIG: Final = "/etc/mail-gateway/gateway.toml"

Command = Callable[[argparse.Namespace], int]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line; every leaf sets `run`, a Command."""
    top = argparse.ArgumentParser(prog="mail-gateway", description="A mail gateway for support teams.")
    top.add_argument("--version", action="version", version=f"mail-gateway {version('mail-gateway')}")
    named: dict[str, Any] = {
        "type": Path,
        "metavar": "PATH",
        "help": f"gateway.toml; default: $MAIL_GATEWAY_CONFIG, else {DEFAULT_CONFIG}",
    }
    top.add_argument("--config", default=Path(os.environ.get("MAIL_GATEWAY_CONFIG") or DEFAULT_CONFIG), **named)
    config = argparse.ArgumentParser(add_help=False)
    config.add_argument("--config", default=argparse.SUPPRESS, **named)  # before the command or behind it
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    groups = (
        *(daemon, touchpoint, rules, render, queue, quarantine, block, auto_reply, outbox, trace, explain, agent),
        backup,
    )
    for group in groups:
        group.add(commands, config)
    return top


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code."""
    options = parser().parse_args(block.spelt_out(sys.argv[1:] if argv is None else argv))
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal that lacks a letter gets another, not a traceback
            stream.reconfigure(errors="replace")
    try:
        exit_code = int(options.run(options))
        sys.stdout.flush()
        return exit_code
    except CommandError as error:
        print(f"mail-gateway: {error}", file=sys.stderr)
        return error.exit_code
    except ConfigError as error:
        for problem in error.problems:
            print(problem, file=sys.stderr)
        return 1
    except GatewayError as error:
        print(f"mail-gateway: {error}", file=sys.stderr)
        return 75
    except BrokenPipeError:  # `mail-gateway queue list | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(f"mail-gateway: {error.filename or 'the command'}: {error.strerror or error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
