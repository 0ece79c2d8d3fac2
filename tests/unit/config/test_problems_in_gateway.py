"""Each slip in gateway.toml gets one sentence, and the line on which it stands."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from gateway import config
from gateway.errors import ConfigError, Severity
from tests.unit.config.writing import SUPPORT, check, load, marked_line, said, write

SLIPS = {
    "unknown key": ('state_dri = "/tmp"  # here', 'unknown key "state_dri" in gateway.toml; did you mean "state_dir"?'),
    "unknown section": ("[submision]  # here", 'unknown key "submision" in gateway.toml; did you mean "submission"?'),
    "key without its header": (
        "max_connections_per_address = 5  # here",
        'unknown key "max_connections_per_address" in gateway.toml; it belongs to [submission]',
    ),
    "key below a header": (
        '[log]\nhostname = "a"  # here',
        'unknown key "hostname" in [log]; it belongs above all tables',
    ),
    "unknown key in a section": ('[log]\nlvl = "info"  # here', 'unknown key "lvl" in [log]; did you mean "level"?'),
    "section as value": ('log = "info"  # here', "log must be a table"),
    "hostname": ('hostname = "my host"  # here', "hostname needs the full name of this host"),
    "time zone": (
        'timezone = "Europe/Lisabon"  # here',
        'timezone: there is no time zone "Europe/Lisabon"; did you mean "Eu',
    ),
    "time zone with a path": ('timezone = "../etc/passwd"  # here', 'timezone: there is no time zone "../etc/passwd"'),
    "listener scheme": (
        '[submission]\nlisten = [\n"imaps://:465",  # here\n]',
        'submission.listen: "imaps://" is not known',
    ),
    "listener in the clear": (
        '[submission]\nlisten = ["smtp+insecure://:25"]  # here',
        'submission.listen: "smtp+insecure://" without TLS is for loopback addresses only',
    ),
    "listener with a path": (
        '[submission]\nlisten = ["smtps://a/b"]  # here',
        'submission.listen: "smtps://a/b" cannot be',
    ),
    "port": ('[submission]\nlisten = ["smtps://:70000"]  # here', "submission.listen: there is no port 70000"),
    "no certificate": ('[submission]\nlisten = ["smtps://:465"]  # here', "smtps://:465 needs a certificate"),
    "no certificate to read mail": ('[imap]\nlisten = ["imap://:143"]  # here', "imap://:143 needs a certificate"),
    "half a pair": (
        '[submission]\ncertificate = "a.pem"  # here',
        '[submission] has a certificate but no private_key; add private_key = "…"',
    ),
    "missing certificate": (
        '[submission]\nprivate_key = "b.pem"\ncertificate = "a.pem"  # here',
        "certificate {directory}/a.pem does not exist",
    ),
    "same port": (
        '[submission]\nlisten = ["smtp+insecure://127.0.0.1:2525"]\n[http]\nlisten = "127.0.0.1:2525"  # here',
        "http://127.0.0.1:2525 and smtp+insecure://127.0.0.1:2525 want the same port",
    ),
    "http without port": ('[http]\nlisten = "127.0.0.1"  # here', "http.listen needs a port"),
    "public_url": (
        '[http]\npublic_url = "gateway.example.com"  # here',
        "http.public_url needs the address people reach",
    ),
    "size": ('[inbound]\nmax_message_size = "35 MX"  # here', 'inbound.max_message_size: "MX" is not a unit of size'),
    "size in words": ('[inbound]\nmax_message_size = "big"  # here', 'inbound.max_message_size: "big" is not a size'),
    "duration without unit": ("[outbound]\ngive_up_after = 5  # here", "outbound.give_up_after needs a duration"),
    "unit of time": (
        '[outbound]\ngive_up_after = "5 dais"  # here',
        'outbound.give_up_after: "dais" is not a unit of time',
    ),
    "no time": ('[outbound]\ngive_up_after = "0 days"  # here', "outbound.give_up_after must be longer than nothing"),
    "source": (
        '[outbound]\nsource_address = "eth0"  # here',
        'outbound.source_address: "eth0" is not an address of this',
    ),
    "network": (
        '[submission]\ntrusted_networks = [\n"10.0.0.0/8",\n"10.0.0.0/33",  # here\n]',
        'submission.trusted_networks: "10.0.0.0/33" is not a network',
    ),
    "number": (
        '[submission]\nmax_connections_per_address = "5"  # here',
        "submission.max_connections_per_address must be a",
    ),
    "choice": ('[submission]\nown_address = "rewrit"  # here', 'unknown submission.own_address "rewrit"; did you mean'),
    "choice without a guess": (
        '[log]\nlevel = "trace"  # here',
        'unknown log.level "trace"; use "debug", "info", "warning" or',
    ),
    "reserved queue": (
        '[queues]\nnames = ["linked"]  # here',
        'queues.names: "linked" has a meaning of its own in rules',
    ),
    "via": ('[notifications]\nvia = "suport"  # here', 'unknown touchpoint "suport"; did you mean "support"?'),
    "via a server": ('[notifications]\nvia = "http://a"  # here', 'notifications.via: "http://" is not known here'),
    "to": ('[notifications]\nto = ["it"]  # here', 'notifications.to: "it" is not an e-mail address'),
    "application": ("[oauth.microsoft]  # here\ntenant = 'a'", "[oauth.microsoft] has no client_id"),
    "own application": (
        '[oauth.acme]  # here\nclient_id = "a"\ntoken_url = "https://a/t"',
        "[oauth.acme] is not built in and has no authorize_url",
    ),
    "endpoint in the clear": (
        '[oauth.acme]\nclient_id = "a"\nauthorize_url = "https://a"\ntoken_url = "http://a"  # here',
        'oauth.acme.token_url needs an address that begins with "https://"',
    ),
    "date": (
        '[oauth.gmail]\nclient_id = "a"\nclient_secret_expires = "soon"  # here',
        "oauth.gmail.client_secret_expires needs a",
    ),
}


@pytest.mark.parametrize(("gateway", "message"), SLIPS.values(), ids=SLIPS.keys())
def test_a_slip_is_explained_at_its_line(tmp_path: Path, gateway: str, message: str) -> None:
    wanted = f"gateway.toml:{marked_line(gateway)}: {message.replace('{directory}', str(tmp_path))}"
    problems = said(check(tmp_path, SUPPORT, gateway))
    assert any(each.startswith(wanted) for each in problems), problems


def certify(directory: Path, name: str) -> None:
    certificate = trustme.CA().issue_cert("gateway.example.com")
    certificate.private_key_pem.write_to_path(directory / f"{name}.key")
    certificate.cert_chain_pems[0].write_to_path(directory / f"{name}.pem")


def test_a_key_that_does_not_belong_to_the_certificate_is_refused(tmp_path: Path) -> None:
    certify(tmp_path, "a")
    certify(tmp_path, "b")
    gateway = '[submission]\ncertificate = "a.pem"\nprivate_key = "b.key"'
    assert said(check(tmp_path, SUPPORT, gateway)) == [
        f"gateway.toml:3: {tmp_path / 'b.key'} is not the key of {tmp_path / 'a.pem'};"
        " name a pair that belongs together"
    ]


def test_what_is_no_certificate_is_refused(tmp_path: Path) -> None:
    certify(tmp_path, "a")
    (tmp_path / "a.pem").write_text("hello")
    problems = said(check(tmp_path, SUPPORT, '[submission]\ncertificate = "a.pem"\nprivate_key = "a.key"'))
    assert len(problems) == 1
    assert "cannot be used; both must be PEM, the key without a password" in problems[0]


def test_a_ca_file_must_hold_certificates(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("hello")
    rules = SUPPORT.replace("[[agent]]", 'ca_file = "ca.pem"\n[[agent]]', 1)
    problems = said(check(tmp_path, rules))
    assert len(problems) == 1
    assert "holds no certificate; it must be PEM" in problems[0]
    trustme.CA().cert_pem.write_to_path(tmp_path / "ca.pem")
    assert said(check(tmp_path, rules)) == []
    assert load(tmp_path, rules).touchpoints["support"].ca_file == tmp_path / "ca.pem"


def test_with_a_certificate_the_usual_ports_are_opened(tmp_path: Path) -> None:
    certify(tmp_path, "a")
    gateway = load(tmp_path, SUPPORT, '[submission]\ncertificate = "a.pem"\nprivate_key = "a.key"').gateway
    assert [str(each) for each in gateway.submission.listen] == ["smtps://:465", "smtp://:587"]
    assert [str(each) for each in gateway.imap.listen] == ["imaps://:993"]


def test_without_a_certificate_nothing_listens_and_it_is_said(tmp_path: Path) -> None:
    loaded = load(tmp_path, SUPPORT)
    assert loaded.gateway.submission.listen == ()
    assert any("agents cannot send" in each for each in said(loaded.problems, Severity.NOTICE))


def test_only_gateway_toml_decides_whether_it_can_be_loaded_alone(tmp_path: Path) -> None:
    path = write(tmp_path, "nonsense", 'hostname = "gateway.example.com"')
    assert config.load_gateway(path).hostname == "gateway.example.com"
    path.write_text('hostnam = "a"')
    with pytest.raises(ConfigError, match="hostnam"):
        config.load_gateway(path)


def test_without_rules_there_is_a_configuration_in_which_nothing_moves(tmp_path: Path) -> None:
    loaded = config.without_rules(write(tmp_path, "nonsense", '[notifications]\nvia = "support"'))
    assert loaded.touchpoints == {}
    assert loaded.gateway.notifications.via == "support"


def test_check_takes_another_rules_file_or_another_gateway_file(tmp_path: Path) -> None:
    path = write(tmp_path, SUPPORT, '[queues]\nnames = ["support"]')
    other = tmp_path / "new.toml"
    other.write_text(SUPPORT.replace('ring_groups = ["support"]', 'ring_groups = ["suport"]'))
    assert said(config.check(path, other)) == ['new.toml:13: unknown queue "suport"; did you mean "support"?']
    other.write_text('hostnam = "a"\n[queues]\n[log]\n')
    assert said(config.check(path, other)) == [
        'new.toml:1: unknown key "hostnam" in new.toml; did you mean "hostname"?'
    ]
