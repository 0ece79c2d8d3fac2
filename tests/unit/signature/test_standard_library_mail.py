"""The laws of injecting on the mail that Python's own e-mail package is tested with: forty years of odd shapes."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import ALREADY_THERE, Injected, inject
from tests.support.message_laws import check_splice, leaves, no_new_defects, parse, stored

ANA = RenderedSignature("<p>Ana Lima – <b>Ελλάδα</b></p>", "Ana Lima – Ελλάδα")


def _mails() -> list[Path]:
    found = importlib.util.find_spec("test.test_email")
    if found is None or found.origin is None:
        raise RuntimeError(
            "Python's own tests are not installed; as root: make peers (apt-get: libpython3.x-testsuite)"
        )
    return sorted((Path(found.origin).parent / "data").glob("msg_*.txt"))


MAILS = _mails()


def test_there_is_enough_of_it() -> None:
    assert len(MAILS) >= 40


@pytest.mark.parametrize("mail", MAILS, ids=lambda mail: mail.stem)
@pytest.mark.parametrize("ends", ["as-they-are", "crlf"])
def test_the_laws_hold_for(mail: Path, ends: str) -> None:
    raw = mail.read_bytes()
    if ends == "crlf":
        raw = raw.replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    injected = inject(raw, ANA)
    no_new_defects(raw, injected.raw)
    if not injected.placed:
        assert injected.raw == raw
        assert injected.reason
        return
    assert inject(injected.raw, ANA) == Injected(injected.raw, True, ALREADY_THERE)
    old, new = leaves(parse(raw)), leaves(parse(injected.raw))
    if len(new) > len(old):  # nothing but files: a text came in front
        assert [stored(leaf) for leaf in new[-len(old) :]] == [stored(leaf) for leaf in old]
    else:
        assert check_splice(raw, injected.raw, ANA)
