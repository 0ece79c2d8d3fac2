"""What is never touched, and what only looks like it."""

from __future__ import annotations

import pytest

from gateway.outbound.sender import SIGNED_TYPES
from gateway.outbound.signature.block import RenderedSignature
from gateway.outbound.signature.inject import inject

ANA = RenderedSignature("<p>Ana</p>", "Ana")


def inject_into(*lines: str) -> tuple[bool, str]:
    raw = "\r\n".join(("From: a@example.com", *lines)).encode()
    injected = inject(raw, ANA)
    assert injected.placed or injected.raw == raw
    return injected.placed, injected.reason


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["DKIM-Signature: v=1", "", "x"], "already DKIM-signed"),
        (["Auto-Submitted: auto-replied", "", "x"], "automatically submitted (RFC 3834)"),
        (["Auto-Submitted: auto-generated (x); a=b", "", "x"], "automatically submitted (RFC 3834)"),
        (["Content-Type: message/rfc822", "", "Subject: x", "", "x"], "a message/rfc822 as a whole"),
        (["Content-Type: message/disposition-notification", "", "x"], "a message/disposition-notification as a whole"),
        (["Content-Type: application/pkcs7-mime; smime-type=enveloped-data", "", "x"], "S/MIME (RFC 8551)"),
        (["Content-Type: application/octet-stream; name=smime.p7m", "", "x"], "S/MIME (RFC 8551)"),
        (["Content-Type: multipart/signed; boundary=b", "", "--b", "", "x", "--b--"], "signed (RFC 1847)"),
        (["Content-Type: multipart/encrypted; boundary=b", "", "--b", "", "x", "--b--"], "encrypted (RFC 1847)"),
        (["Content-Type: multipart/report; boundary=b", "", "--b", "", "x", "--b--"], "a report (RFC 6522)"),
        (
            ["Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: multipart/signed; boundary=c", "",
             "--c", "", "x", "--c--", "--b--"],
            "signed (RFC 1847)",
        ),
        (["Content-Type: text/calendar; method=REPLY", "", "x"], "the answer to an invitation (RFC 6047)"),
        (["Content-Type: text/calendar; method=Counter", "", "x"], "the answer to an invitation (RFC 6047)"),
        (
            ["Content-Type: multipart/alternative; boundary=b", "", "--b", "", "Yes", "--b",
             "Content-Type: text/calendar", "", "BEGIN:VCALENDAR", "METHOD:REPLY", "--b--"],
            "the answer to an invitation (RFC 6047)",
        ),
        (
            ["Content-Type: text/calendar", "Content-Transfer-Encoding: base64", "",
             "QkVHSU46VkNBTEVOREFSDQpNRVRIT0Q6UkVQTFkNCg=="],
            "the answer to an invitation (RFC 6047)",
        ),
        (["ARC-Message-Signature: i=1; a=rsa-sha256", "", "x"], "already signed by ARC (RFC 8617)"),
        (["Resent-From: b@example.com", "", "x"], "somebody else's mail that is passed on (RFC 5322 §3.6.6)"),
        (
            ["Content-Type: multipart/mixed; boundary=b", "", "--b", "", "x", "--b",
             "Content-Type: application/pkcs7-mime", "", "x", "--b--"],
            "S/MIME (RFC 8551)",
        ),
        (["", "hello", "-----BEGIN PGP MESSAGE-----", "x"], "inline PGP or S/MIME"),
        (["", "-----BEGIN PGP SIGNED MESSAGE-----", "x"], "inline PGP or S/MIME"),
        (["Content-Type: text/html", "", "<pre>-----BEGIN PGP MESSAGE-----</pre>"], "inline PGP or S/MIME"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_it_stays_as_it_is(lines: list[str], reason: str) -> None:
    assert inject_into(*lines) == (False, reason)


@pytest.mark.parametrize(
    "lines",
    [
        ["Auto-Submitted: no", "", "x"],
        ["Auto-Submitted: NO (a person)", "", "x"],
        ["", "> -----BEGIN PGP MESSAGE-----", "x"],
        ["", "see -----BEGIN PGP MESSAGE-----"],
        ["", "-----BEGIN PGP PUBLIC KEY BLOCK-----"],
        ["Content-Type: multipart/mixed; boundary=b", "", "--b", "", "x", "--b", "Content-Type: message/rfc822", "",
         "DKIM-Signature: v=1", "Content-Type: multipart/signed; boundary=c", "", "--c", "", "x", "--c--", "--b--"],
        ["Content-Type: multipart/alternative; boundary=b", "", "--b", "", "x", "--b",
         "Content-Type: text/calendar; method=REQUEST", "", "x", "--b--"],
        ["Content-Type: multipart/alternative; boundary=b", "", "--b", "", "Can we talk?", "--b",
         "Content-Type: text/calendar", "", "METHOD:PUBLISH", "DESCRIPTION:METHOD:REPLY", "--b--"],
    ],
    ids=["not-auto", "not-auto-comment", "quoted", "in-a-line", "key", "forwarded-signed", "invitation", "published"],
)  # fmt: skip
def test_it_only_looks_like_it(lines: list[str]) -> None:
    assert inject_into(*lines) == (True, "")


@pytest.mark.parametrize("kind", sorted(SIGNED_TYPES))
def test_what_the_door_takes_for_signed_is_never_touched(kind: str) -> None:
    assert not inject_into(f"Content-Type: {kind}; boundary=b", "", "--b", "", "x", "--b--")[0]
