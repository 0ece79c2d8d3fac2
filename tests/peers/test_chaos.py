"""Five mailboxes in a storm: afterwards each message that stayed in a watched folder is in the gateway exactly once.

As large as the issue wants it with `make soak`; as small as a test run allows without.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.support.authority import Authority
from tests.support.cyrus import Cyrus
from tests.support.daemon import Daemon
from tests.support.dovecot import Dovecot
from tests.support.provider import Provider
from tests.support.storm import Size, Storm

SOAK = os.environ.get("SOAK") == "1"
SIZE = Size(10_000, kills=50, seed=3, lull=2.0, patience=900) if SOAK else Size(400, kills=8, seed=3, lull=0.4)


@pytest.mark.timeout(3600 if SOAK else 180)
@pytest.mark.parametrize("kind", [Dovecot, Cyrus], ids=["dovecot", "cyrus"])
def test_what_stayed_is_there_once_whatever_colleagues_links_the_server_and_kill_9_did(
    kind: type[Dovecot | Cyrus],
    authority: Authority,
    make_daemon: Callable[..., Daemon],
    record_property: Callable[[str, object], None],
) -> None:
    provider = Provider(authority, kind)
    storm = Storm(provider, make_daemon, SIZE)
    try:
        storm.seed()
        storm.rage()
        storm.settle()
        counted = storm.count()
        record_property("counts", f"{kind.__name__}: {counted}; {storm.story()}")
        assert not counted.wrong, "\n".join(counted.wrong[:40])
        assert counted.stayed > SIZE.messages // 3
        assert counted.twins > 0
        assert counted.junk > 0
        assert storm.did["kill"] >= SIZE.kills
        storm.settle()
        assert storm.count() == counted, "after another start it is the same"
    finally:
        storm.close()
        provider.close()
