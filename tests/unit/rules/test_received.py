"""Who handed a message to the provider, by the fields that its own servers wrote."""

from __future__ import annotations

import pytest

from gateway.mime.scan import scan
from gateway.rules.received import border, read

POSTFIX = "from helo.example (rdns.example [192.0.2.1]) by mx.host.example (Postfix) with ESMTPS id 1"
LMTP = "from mx.host.example ([127.0.0.1]) by store.host.example with LMTP id 1"
INNER = "from edge.host.example (edge.host.example [10.1.2.3]) by mx.host.example with ESMTP"


@pytest.mark.parametrize(
    ("value", "ip", "helo"),
    [
        pytest.param(POSTFIX, "192.0.2.1", "helo.example", id="Postfix"),
        pytest.param(
            "from [203.0.113.9] (unknown [192.0.2.1]) by mx", "192.0.2.1", "203.0.113.9", id="literal as name"
        ),
        pytest.param("from [192.0.2.1] (helo=h.example) by mx with esmtp (Exim)", "192.0.2.1", "h.example", id="Exim"),
        pytest.param(
            "from r.example ([192.0.2.1]:4321 helo=[203.0.113.9]) by mx", "192.0.2.1", "203.0.113.9", id="Exim, literal"
        ),
        pytest.param("from unknown (HELO 203.0.113.9) (192.0.2.1) by mx", "192.0.2.1", "203.0.113.9", id="qmail"),
        pytest.param("from a.example (2001:db8::5) by b with HTTPS", "2001:db8::5", "a.example", id="Exchange"),
        pytest.param("from a.example (a [IPv6:2001:db8::5]) by b", "2001:db8::5", "a.example", id="the other family"),
        pytest.param(
            "from h (1.2.3.4.dyn.example. [192.0.2.1]) by mx", "192.0.2.1", "h", id="a name that looks like an address"
        ),
        pytest.param(
            "from h (r.example [192.0.2.1]) (using TLSv1.3 with cipher A (256/256 bits)) by mx",
            "192.0.2.1",
            "h",
            id="TLS",
        ),
    ],
)
def test_a_field_names_its_client(value: str, ip: str, helo: str) -> None:
    peer = read(value)
    assert peer is not None
    assert (str(peer.ip), peer.helo) == (ip, helo)


@pytest.mark.parametrize(
    "value",
    [
        "by 2002:a05:6402:5204:b0:649:1 with SMTP id x",
        "from mail.example by mx.host.example with ESMTP",
        "from h (192.0.2.1) ([203.0.113.9]) by mx",
        "from h ([999.0.2.1]) by mx",
        "(qmail 1 invoked by uid 0)",
        "",
    ],
)
def test_a_field_that_leaves_doubt_names_nobody(value: str) -> None:
    assert read(value) is None


@pytest.mark.parametrize(
    ("fields", "ip"),
    [
        pytest.param([POSTFIX], "192.0.2.1", id="one hop"),
        pytest.param([LMTP, INNER, POSTFIX], "192.0.2.1", id="inner hops first"),
        pytest.param(["by 2002:a05:6402:1::1 with SMTP id x", POSTFIX], "192.0.2.1", id="a step without a client"),
        pytest.param(["from localhost by mx with ESMTP", POSTFIX], "192.0.2.1", id="from itself"),
        pytest.param(["from mx.a by mx.a with ESMTP", POSTFIX], "192.0.2.1", id="from its own name"),
        pytest.param(["from x.example by mx.host.example with ESMTP", POSTFIX], None, id="a client without an address"),
        pytest.param(["from h (192.0.2.9) ([203.0.113.9]) by mx", POSTFIX], None, id="a client with two"),
        pytest.param([LMTP] * 20 + [POSTFIX], None, id="too deep inside"),
        pytest.param([], None, id="no hop"),
    ],
)
def test_the_border_is_the_first_public_client(fields: list[str], ip: str | None) -> None:
    header = "".join(f"Received: {field}; Mon, 23 Nov 2026 12:00:00 +0000\r\n" for field in fields)
    peer = border(scan(header.encode() + b"\r\n"))
    assert (str(peer.ip) if peer else None) == ip
