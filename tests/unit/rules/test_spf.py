"""SPF: who may send, by which record; and what is too much, wrong, or nobody's to say."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from gateway.rules import spf
from gateway.rules.dns import Kind, run
from tests.support.zone import Zone

GOOD, OTHER, SIX = "192.0.2.10", "198.51.100.1", "2001:db8::10"

ZONE = f"""
host.example. A {GOOD}
host.example. AAAA {SIX}
mx.example. MX 10 nowhere.example.
mx.example. MX 5 host.example.
10.2.0.192.in-addr.arpa. PTR host.example.
10.2.0.192.in-addr.arpa. PTR liar.example.
liar.example. A {OTHER}
other.example. TXT "v=spf1 ip4:192.0.2.0/24 -all"
soft.example. TXT "v=spf1 ip4:{OTHER} ~all"
wrong.example. TXT "v=spf1 ip4:192.0.2.300 -all"
loop.example. TXT "v=spf1 include:loop.example -all"
two.example. TXT "v=spf1 -all"
two.example. TXT "v=spf1 +all"
words.example. TXT "spf is nice"
words.example. TXT "v=spf10 +all"
cased.example. TXT "V=SPF1 IP4:{GOOD} -ALL"
joe._l.example. A 127.0.0.2
10.2.0.192.in-addr._v.example. A 127.0.0.2
example._d2r.example. A 127.0.0.2
bar.foo._s.example. A 127.0.0.2
name.example._p.example. A 127.0.0.2
"""
MANY_MX = "\n".join(f"crowd.example. MX 10 h{number}.example." for number in range(11))


def judge(record: str, ip: str = GOOD, sender: str = "joe@test.example", helo: str = "helo.example") -> spf.Spf:
    zone = Zone(f'{ZONE}{MANY_MX}\ntest.example. TXT "{record}"\n', broken=["broken.example"])
    return run(spf.check(ip_address(ip), sender, helo), zone)


@pytest.mark.parametrize(
    ("record", "ip", "result"),
    [
        pytest.param("v=spf1", GOOD, "neutral", id="says nothing"),
        pytest.param("v=spf1 -all", GOOD, "fail", id="nobody may"),
        pytest.param("v=spf1 ~all", GOOD, "softfail", id="better not"),
        pytest.param("v=spf1 ?all", GOOD, "neutral", id="who knows"),
        pytest.param(f"v=spf1 ip4:{GOOD} -all", GOOD, "pass", id="its address"),
        pytest.param(
            f"v=spf1 ip4:{GOOD} -all", f"::ffff:{GOOD}", "pass", id="its address, mapped into the other family"
        ),
        pytest.param("v=spf1 ip4:192.0.2.0/28 -all", GOOD, "pass", id="its network"),
        pytest.param("v=spf1 ip4:0.0.0.0/0 -all", SIX, "fail", id="all of the other family"),
        pytest.param("v=spf1 ip6:2001:db8::/32 -all", SIX, "pass", id="its network of six"),
        pytest.param("v=spf1 a:host.example -all", GOOD, "pass", id="the address of a host"),
        pytest.param("v=spf1 a:host.example//64 -all", "2001:db8::99", "pass", id="near the address of a host"),
        pytest.param("v=spf1 a:host.example/24 -all", "192.0.2.99", "pass", id="near it in the other family"),
        pytest.param("v=spf1 mx:mx.example -all", GOOD, "pass", id="a mail exchanger"),
        pytest.param("v=spf1 mx:mx.example/24//64 -all", OTHER, "fail", id="no mail exchanger"),
        pytest.param("v=spf1 ptr:host.example -all", GOOD, "pass", id="a name that leads back"),
        pytest.param("v=spf1 ptr:liar.example -all", GOOD, "fail", id="a name that leads elsewhere"),
        pytest.param("v=spf1 include:other.example -all", GOOD, "pass", id="included"),
        pytest.param("v=spf1 include:soft.example -all", GOOD, "fail", id="an included softfail is no match"),
        pytest.param("v=spf1 redirect=soft.example", GOOD, "softfail", id="redirected"),
        pytest.param("v=spf1 -all redirect=other.example", GOOD, "fail", id="all comes before redirect"),
        pytest.param("v=spf1 exists:%{l}._l.example -all", GOOD, "pass", id="local part"),
        pytest.param("v=spf1 exists:%{ir}.%{v}._v.example -all", GOOD, "pass", id="reversed address"),
        pytest.param("v=spf1 exists:%{d1}._d2r.example -all", GOOD, "pass", id="the last label"),
        pytest.param("v=spf1 exists:%{p}.%{o}._none.example -all", OTHER, "fail", id="no name of the host"),
        pytest.param("v=spf1 some=thing exp=why.%{d} -all", GOOD, "fail", id="modifiers that nobody knows"),
    ],
)
def test_a_record_says_who_may_send(record: str, ip: str, result: str) -> None:
    assert judge(record, ip).result == result


@pytest.mark.parametrize(
    "record",
    [
        "v=spf1 -all nonsense",
        "v=spf1 ip4:192.0.2.300 -all",
        "v=spf1 ip4:192.0.2.0/33 -all",
        "v=spf1 ip4:192.0.2.0/024 -all",
        "v=spf1 ip6:2001:db8::/129 -all",
        "v=spf1 ip4 -all",
        "v=spf1 a:host.example/33 -all",
        "v=spf1 a:host.example/ -all",
        "v=spf1 a: -all",
        "v=spf1 all:x -all",
        "v=spf1 include -all",
        "v=spf1 exists:%{x}.example -all",
        "v=spf1 exists:%{c}.example -all",
        "v=spf1 exists:%{d0}.example -all",
        "v=spf1 exists:%d.example -all",
        "v=spf1 exists:host.123 -all",
        "v=spf1 redirect=a.example redirect=b.example",
        "v=spf1 -redirect=a.example",
        "v=spf1 =x -all",
        "v=spf1 include:words.example -all",
        "v=spf1 include:wrong.example -all",
        "v=spf1 include:%{l}%{l}.%{l}. -all",
        "v=spf1 redirect=words.example",
        "v=spf1 redirect=%{h1}%{h1}.nowhere-.example",
        "v=spf1 include:loop.example -all",
        "v=spf1 mx:crowd.example -all",
        "v=spf1 a:n1.example a:n2.example a:n3.example -all",
        "v=spf1 " + "include:other.example " * 11 + "-all",
        "v=spf1 exists:" + "%{d}" * 200 + " -all",
        "v=spf1 " + "?all " * 600,
    ],
)
def test_what_nobody_can_follow_is_a_permanent_error(record: str) -> None:
    # ahead of what is wrong nothing matches, whoever sends
    quoted = '" "'.join(record[at : at + 200] for at in range(0, len(record), 200))
    assert judge(quoted, OTHER).result == "permerror"


@pytest.mark.parametrize(
    ("sender", "helo", "result"),
    [
        pytest.param("a@other.example", "x", "pass", id="return path"),
        pytest.param("", "other.example", "pass", id="null return path: the name of the host"),
        pytest.param("", "[192.0.2.10]", "none", id="null return path, no name"),
        pytest.param("a@localhost", "x", "none", id="one label"),
        pytest.param("a@" + "x" * 64 + ".example", "x", "none", id="a label that is too long"),
        pytest.param("other.example", "x", "pass", id="no local part"),
        pytest.param("a@unknown.example", "x", "none", id="no record"),
        pytest.param("a@words.example", "x", "none", id="records of another kind"),
        pytest.param("a@two.example", "x", "permerror", id="two records"),
        pytest.param("a@cased.example", "x", "pass", id="capitals"),
        pytest.param("a@broken.example", "x", "temperror", id="nobody answers"),
        pytest.param("a@ÖTHER.example", "x", "none", id="a name of another script"),
    ],
)
def test_the_return_path_says_whom_to_ask(sender: str, helo: str, result: str) -> None:
    assert judge("v=spf1 -all", GOOD, sender, helo).result == result


def test_a_dns_that_fails_never_makes_a_fail() -> None:
    assert judge("v=spf1 a:broken.example -all").result == "temperror"
    assert judge("v=spf1 include:broken.example -all").result == "temperror"


def test_names_of_a_host_that_cannot_be_had_only_mean_that_it_has_none() -> None:
    zone = Zone('test.example. TXT "v=spf1 ptr exists:%{p}.x.example -all"\n', broken=["in-addr.arpa"])
    assert run(spf.check(ip_address(GOOD), "a@test.example", "h"), zone).result == "fail"
    zone = Zone(
        f'test.example. TXT "v=spf1 ptr -all"\n10.2.0.192.in-addr.arpa. PTR a.test.example.\na.b. A {GOOD}\n',
        broken=["a.test.example"],
    )
    assert run(spf.check(ip_address(GOOD), "a@test.example", "h"), zone).result == "fail"


@pytest.mark.parametrize(
    ("spec", "asked"),
    [
        ("%{s}", "joe.bar@test.example"),
        ("%{lr.}.x", "bar.joe.x"),
        ("%{L}.x", "joe.bar.x"),
        ("%{h}.x", "helo.example.x"),
        ("%{i}.x", "192.0.2.10.x"),
        ("a%%b.x%_%-.%{d}", "a%b.x %20.test.example"),
        ("%{d2}.%{o1}.x", "test.example.example.x"),
        ("%{p}.x", "unknown.x"),
    ],
)
def test_a_macro_becomes_what_it_stands_for(spec: str, asked: str) -> None:
    zone = Zone(f'test.example. TXT "v=spf1 exists:{spec}.example -all"\n')
    run(spf.check(ip_address(GOOD), "joe.bar@test.example", "helo.example"), zone)
    assert zone.asked[-1] == (asked + ".example", Kind.A)


def test_a_name_that_grew_too_long_loses_labels_on_the_left() -> None:
    zone = Zone('test.example. TXT "v=spf1 exists:%{l}.%{l}.%{l}.%{l}.%{l}.end.example -all"\n')
    run(spf.check(ip_address(GOOD), "a." + "b" * 60 + "@test.example", "h"), zone)
    assert len(zone.asked[-1].name) <= 253
    assert zone.asked[-1].name.endswith("b.end.example")


def test_the_host_of_the_other_family_is_spelled_digit_by_digit() -> None:
    zone = Zone('test.example. TXT "v=spf1 exists:%{ir}.%{v}.x.example -all"\n')
    run(spf.check(ip_address("2001:db8::1"), "a@test.example", "h"), zone)
    assert zone.asked[-1].name.startswith("1.0.0.0.")
    assert zone.asked[-1].name.endswith(".8.b.d.0.1.0.0.2.ip6.x.example")


def test_the_first_name_below_the_domain_is_the_name_of_the_host() -> None:
    zone = Zone(
        f'test.example. TXT "v=spf1 exists:%{{p}}.x.example -all"\na.test.example. A {GOOD}\nz.example. A {GOOD}\n'
        "10.2.0.192.in-addr.arpa. PTR z.example.\n10.2.0.192.in-addr.arpa. PTR a.test.example.\n"
    )
    run(spf.check(ip_address(GOOD), "a@test.example", "h"), zone)
    assert zone.asked[-1].name == "a.test.example.x.example"
