"""Each slip in rules.toml gets one sentence, and the line on which it stands."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gateway.config import load as load_config
from gateway.errors import ConfigError, Severity
from tests.unit.config.writing import AGENT, PNG, SUPPORT, TOUCHPOINT, check, marked_line, said, write

QUEUES = '[queues]\nnames = ["support", "billing"]\n'


def expect(rules: str, message: str, problems: list[str]) -> None:
    place = f"rules.toml:{marked_line(rules)}: "
    assert place + message in problems


ONE_KEY = {
    "active as text": ('active = "yes"', "active must be true or false"),
    "direction": ('direction = "inbond"', 'unknown direction "inbond"; did you mean "inbound"?'),
    "provider": ('provider = "gmial"', 'provider: unknown provider "gmial"; did you mean "gmail"?'),
    "provider to come": ('provider = "graph"', 'provider: "graph" is not available yet; use '),
    "list without brackets": ('aliases = "help@example.com"', "aliases must be a list in square brackets"),
    "bad alias": ('aliases = ["help"]', 'aliases: "help" is not an e-mail address'),
    "no folder": ("folders = []", "folders: an empty list matches nothing"),
    "history": (
        'history = "al"',
        'history: "al" is neither "new" nor "all" nor a time such as "30 days"; did you mean',
    ),
    "history without unit": ("history = 30", "history needs a duration with its unit in quotes"),
    "after_fetch": ('after_fetch = "sen"', 'after_fetch needs "keep", "seen" or "move:FOLDER"; did you mean "seen"?'),
    "from_name": ('from_name = "Support"', 'from_name: "Support" is neither "touchpoint" nor "client" nor a template'),
    "idle": ('watch = { renew_idle = "40 min" }', "watch.renew_idle must be 29 min at most"),
    "reconnect": ('watch = { reconnect = "1 min" }', "watch.reconnect must be 5 min at least"),
    "junk": ("watch = { junk = 3 }", "watch.junk needs text in quotes"),
    "sent": ('watch = { sent = "a\\nb" }', "watch.sent must be one line without control characters"),
    "idle or not": ('watch = { idle = "yes" }', "watch.idle must be true or false"),
    "sent copy": ('sent_copy = "mine"', 'unknown sent_copy "mine"; use "provider" or "append"'),
    "pace": ("pace = { connections = 0 }", "pace.connections must be 1 or more"),
    "unknown pace": (
        "pace = { per_minut = 3 }",
        'unknown key "per_minut" in pace of [[touchpoint]] "support@example.com"',
    ),
    "variable": ('variables = { "a b" = "x" }', 'variables: "a b" cannot be used in a template'),
    "built-in variable": ('variables = { name = "x" }', 'variables: "name" is built in'),
    "number as variable": ("variables = { phone = 5 }", 'variables: "phone" needs text in quotes'),
    "dkim without key": ('dkim = { selector = "a", domain = "b.example" }', "has no private_key; add private_key"),
    "unknown ca_file": ('ca_file = "nowhere.pem"', "does not exist; create it or correct the name"),
    "secret in the open": (
        'password = "hunter2"',
        "password must name where the secret is kept, never the secret itself",
    ),
    "secret of no kind": (
        'password = "vault:x"',
        "password must name where the secret is kept, never the secret itself",
    ),
}


@pytest.mark.parametrize(("line", "message"), ONE_KEY.values(), ids=ONE_KEY.keys())
def test_a_wrong_key_of_a_touchpoint_is_explained_at_its_line(tmp_path: Path, line: str, message: str) -> None:
    rules = f"{TOUCHPOINT}{line}  # here\n{AGENT}"
    problems = said(check(tmp_path, rules))
    assert len(problems) == 1
    assert problems[0].startswith(f"rules.toml:{marked_line(rules)}: ")
    assert message in problems[0]


def test_a_secret_is_never_repeated(tmp_path: Path) -> None:
    rules = f"""{TOUCHPOINT}password = "hunter2"
dkim = {{ selector = "a", domain = "b.example", private_key = "hunter2" }}
imap_login = ["hunter2"]
[[agent]]
login = "ben@example.com"
name = "Ben"
password_hash = "hunter2"
"""
    gateway = (
        '[oauth.microsoft]\nclient_id = "a"\nclient_secret = "hunter2"\n[notifications]\nvia = "smtp://a:hunter2@b"'
    )
    problems = check(tmp_path, rules, gateway)
    assert len(said(problems)) == 6
    assert "hunter2" not in "".join(map(str, problems))


WHOLE = {
    "misspelt mandatory key": (
        '[[touchpoint]]\nadress = "a@b.example"  # here\nname = "A"\nlinked_queues = ["a"]\nimap = "imaps://a"\nsmtp = "smtps://a"',
        'unknown key "adress" in [[touchpoint]]; did you mean "address"?',
    ),
    "missing key": (
        '[[touchpoint]]  # here\nname = "A"\nlinked_queues = ["a"]',
        '[[touchpoint]] has no address; add address = "…"',
    ),
    "single brackets": ('[touchpoint]  # here\naddress = "a@b.example"', "write [[touchpoint]] with two brackets"),
    "unknown table": (SUPPORT + "[[rules]]  # here\n", 'unknown key "rules" in rules.toml; did you mean "rule"?'),
    "key behind a table": (
        TOUCHPOINT + '[touchpoint.signature]\naliases = ["a@b.example"]  # here\n' + AGENT,
        'unknown key "aliases" in signature of [[touchpoint]] "support@example.com"; '
        'it belongs to [[touchpoint]] "support@example.com", above its tables',
    ),
    "no linked queue": (
        TOUCHPOINT.replace('linked_queues = ["support"]', "").replace("[[touchpoint]]", "[[touchpoint]]  # here"),
        'touchpoint "support" has no linked queue',
    ),
    "no server": (
        TOUCHPOINT.replace('smtp = "smtps://smtp.example.com"', "").replace("[[touchpoint]]", "[[touchpoint]]  # here"),
        'touchpoint "support" sends but names no server; add smtp =',
    ),
    "insecure server": (
        TOUCHPOINT.replace('"imaps://imap.example.com"', '"imap+insecure://imap.example.com"  # here'),
        'imap: "imap+insecure://" sends mail and password in the clear and is for loopback addresses only',
    ),
    "wrong protocol": (
        TOUCHPOINT.replace('"imaps://imap.example.com"', '"smtps://imap.example.com"  # here'),
        'imap: "smtps://" is not known here; use imaps://, imap:// or imap+insecure://',
    ),
    "dkim with a provider": (
        TOUCHPOINT + 'provider = "gmail"\ndkim = { selector = "a", domain = "b", private_key = "env:K" }  # here\n',
        "dkim is for custom touchpoints: gmail signs by itself; remove it",
    ),
    "same id": (
        TOUCHPOINT
        + TOUCHPOINT.replace("support@", "other@")
        .replace("imap.", "imap2.")
        .replace('"support"\na', '"Support"  # here\na'),
        'the id "Support" is that of line 3 too; choose another',
    ),
    "same address": (
        TOUCHPOINT
        + TOUCHPOINT.replace('id = "support"\n', "")
        .replace("imap.", "imap2.")
        .replace('"support@example.com"', '"Support@Example.com"  # here'),
        'the address "Support@Example.com" is on line 4 too; it can belong to one touchpoint only',
    ),
    "alias is an address": (
        TOUCHPOINT + 'aliases = [\n  "help@example.com",\n  "support@example.com",  # here\n]\n',
        'the address "support@example.com" is on line 4 too',
    ),
    "same mailbox": (
        TOUCHPOINT
        + TOUCHPOINT.replace('"support"\na', '"second"\na').replace("support@example.com", "other@example.com")
        + 'login = "support@example.com"\nfolders = ["inbox"]  # here\n',
        'the folder "inbox" of support@example.com at imap.example.com is watched already, by the touchpoint of line 2',
    ),
    "same folder twice": (
        TOUCHPOINT + 'folders = [\n"INBOX",\n"Inbox",  # here\n]\n',
        'the folder "Inbox" of support@example.com at imap.example.com is watched already',
    ),
    "junk is a folder": (
        TOUCHPOINT + 'folders = ["INBOX", "Spam"]\nwatch = { junk = "Spam" }  # here\n' + AGENT,
        'watch.junk is "Spam", which folders names as well; a folder is watched as one of them',
    ),
    "sent is junk": (
        TOUCHPOINT + '[touchpoint.watch]\njunk = "Bin"\nsent = "Bin"  # here\n' + AGENT,
        'watch.sent is "Bin", which watch.junk names as well; a folder is watched as one of them',
    ),
    "junk of another": (
        TOUCHPOINT
        + 'watch = { junk = "Spam" }\n'
        + TOUCHPOINT.replace('"support"\na', '"second"\na').replace("support@example.com", "other@example.com")
        + 'login = "support@example.com"\nfolders = ["Other"]\nwatch = { junk = "Spam" }  # here\n',
        'the folder "Spam" of support@example.com at imap.example.com is watched already, by the touchpoint of line 9',
    ),
    "move into a watched folder": (
        TOUCHPOINT + 'folders = ["Orders", "Inbox"]\nafter_fetch = "move:INBOX"  # here\n' + AGENT,
        'after_fetch would move mail to "INBOX", which is watched, so that it would be found again there;'
        " name another folder",
    ),
    "move into Junk": (
        TOUCHPOINT + 'after_fetch = "move:Spam"  # here\nwatch = { junk = "Spam" }\n' + AGENT,
        'after_fetch would move mail to "Spam", which is watched',
    ),
    "move into another's folder": (
        TOUCHPOINT
        + 'after_fetch = "move:Orders"  # here\n'
        + TOUCHPOINT.replace('"support"\na', '"second"\na').replace("support@example.com", "other@example.com")
        + 'login = "support@example.com"\nfolders = ["Orders"]\n',
        'after_fetch would move mail to "Orders", which is watched by another touchpoint',
    ),
    "same login": (
        SUPPORT + AGENT.replace('"ana@example.com"', '"ANA@example.com"  # here'),
        'agent "ANA@example.com" is there twice, the first on line 11; give each its own login',
    ),
    "unknown touchpoint of a rule": (
        SUPPORT + '[[rule]]\nname = "a"\nstop = true\ntouchpoints = [\n"support",\n"suport",  # here\n]',
        'unknown touchpoint "suport"; did you mean "support"?',
    ),
    "unknown touchpoint of an agent": (
        SUPPORT + 'touchpoints = ["sales@example.com"]  # here\n',
        'unknown touchpoint "sales@example.com"; did you mean "support@example.com"?',
    ),
    "unknown hours": (
        SUPPORT + '[hours.office]\nopen = ["mon 9:00-10:00"]\n[[rule]]\nname = "a"\nstop = true\n[rule.if]\n'
        'subject = "x"\nnot = [ { any = [ { size_over = 5 },\n { hours = "ofice:open" } ] } ]  # here\n',
        'unknown hours "ofice"; did you mean "office"?',
    ),
    "unknown hours of an auto-reply": (
        TOUCHPOINT + '[touchpoint.auto_reply]\nwhen = "office:closed"  # here\n' + AGENT,
        'unknown hours "office"; add a table [hours.office]',
    ),
    "hours without state": (
        TOUCHPOINT + '[touchpoint.auto_reply]\nwhen = "office"  # here\n' + AGENT,
        'auto_reply.when needs "always", or the name of hours and a state such as "office:closed"',
    ),
    "day": (
        SUPPORT + '[hours.office]\nopen = [\n"mon 9:00-10:00",\n"satt 9:00-10:00",  # here\n]',
        'open: "satt 9:00-10:00": unknown day "satt"; did you mean "sat"?',
    ),
    "holiday": (
        SUPPORT + '[hours.office]\nopen = ["mon 9:00-10:00"]\nholidays = ["25.12.2026"]  # here\n',
        'holidays: "25.12.2026" is not a day; write for example "2026-12-25"',
    ),
    "password hash": (
        AGENT + 'password_hash = "secret"  # here\n',
        'password_hash needs a hash that begins with "$argon2", never the password',
    ),
    "reserved queue": (
        AGENT.replace('["support"]', '["agent:ana"]  # here'),
        'ring_groups: "agent:ana" is reserved: "agent:…" are the personal queues of agents',
    ),
    "linked as queue": (
        TOUCHPOINT.replace('["support"]', '["linked"]  # here'),
        'linked_queues: "linked" is a word of rules, not a queue',
    ),
    "domain in the block list": (
        '[spam]\nblocklist = [\n"a@b.example",\n"bad.example",  # here\n]',
        'blocklist: "bad.example" has no @; for a whole domain write "*@bad.example"',
    ),
    "scanner": ('[spam]\nscanner = "rspamd"  # here', 'scanner needs "rspamd+http://HOST:PORT" or "spamd://HOST:PORT"'),
    "scanner with a path": ('[spam]\nscanner = "rspamd+http://a:1/b"  # here', "scanner needs"),
    "scanner with a login": ('[spam]\nscanner = "rspamd+http://a:b@c:1"  # here', "scanner needs"),
    "scanner at no port": ('[spam]\nscanner = "spamd://localhost:99999"  # here', "scanner needs"),
    "scanner without a port": ('[spam]\nscanner = "rspamd+http://localhost"  # here', "scanner needs"),
    "teacher": ('[spam]\nlearn_at = "http://localhost:11334"  # here', "learn_at needs"),
    "patience with the scanner": ('[spam]\nscanner_timeout = "1 min"  # here', "scanner_timeout must be 10 s at most"),
    "secret of the scanner": (
        '[spam]\nlearn_password = "opensesame"  # here',
        "learn_password must name where the secret is kept, never the secret itself",
    ),
    "score": ("[spam]\nquarantine_over = true  # here", "quarantine_over needs a number"),
}


@pytest.mark.parametrize(("rules", "message"), WHOLE.values(), ids=WHOLE.keys())
def test_a_slip_is_explained_at_its_line(tmp_path: Path, rules: str, message: str) -> None:
    problems = said(check(tmp_path, rules))
    assert any(each.startswith(f"rules.toml:{marked_line(rules)}: {message}") for each in problems), problems


CONDITIONS = {
    "unknown": ('subjekt = "x"', 'unknown key "subjekt" in if of [[rule]] "a"; did you mean "subject"?'),
    "class": ('class = "humn"', 'unknown if.class "humn"; did you mean "human"?'),
    "class in a list": ('class = ["human",\n"listt"  # here\n]', 'unknown if.class "listt"; did you mean "list"?'),
    "expression": (
        'subject = [ "ok",\n"/(a/",  # here\n]',
        "if.subject: the regular expression /(a/ cannot be used: missing )",
    ),
    "no lookahead": ('body = "/(?=a)b/"', "if.body: the regular expression /(?=a)b/ cannot be used"),
    "header": ('"header.X-Foo" = "/[/"', "if.header.X-Foo: the regular expression /[/ cannot be used"),
    "dotted header": ('header.x-foo = "/[/"', "if.header.x-foo: the regular expression /[/ cannot be used"),
    "empty pattern": ('to = ""', "if.to: an empty pattern matches nothing useful"),
    "empty list": ("cc = []", "if.cc: an empty list matches nothing"),
    "size": ('size_over = "5 XB"', 'if.size_over: "XB" is not a unit of size'),
    "spf": ('spf = "passs"', 'unknown if.spf "passs"; did you mean "pass"?'),
    "score": ('spam_score_over = "5"', "if.spam_score_over needs a number"),
    "attachment": ('has_attachment = "yes"', "if.has_attachment must be true or false"),
    "within any": (
        'any = [ { to = "*" },\n{ dkimm = "pass" },  # here\n]',
        'unknown key "dkimm" in if.any of [[rule]] "a"',
    ),
    "deeper": ("not = { all = [ { any = [ { to = 5 } ] } ] }", "if.not.all.any.to needs a pattern in quotes"),
    "hours": ('hours = "office"', "if.hours needs the name of hours and a state"),
}


@pytest.mark.parametrize(("condition", "message"), CONDITIONS.values(), ids=CONDITIONS.keys())
def test_a_wrong_condition_is_explained_at_its_line(tmp_path: Path, condition: str, message: str) -> None:
    mark = "" if "# here" in condition else "  # here"
    rules = f'{SUPPORT}\n[[rule]]\nname = "a"\nstop = true\n[rule.if]\nfrom = "*"\n{condition}{mark}\n'
    problems = said(check(tmp_path, rules))
    assert len(problems) == 1
    assert problems[0].startswith(f"rules.toml:{marked_line(rules)}: {message}")


def test_a_queue_that_is_not_among_the_names_is_unknown_wherever_it_stands(tmp_path: Path) -> None:
    rules = """[[touchpoint]]
address = "support@example.com"
name = "Example Support"
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
linked_queues = [
  "support",
  "suport",
]

[[agent]]
login = "ana@example.com"
name = "Ana Lima"
ring_groups = ["support", "billing", "unrouted", "sales"]

[[rule]]
name = "invoices"
then = { queue = ["linked", "biling"] }
"""
    assert said(check(tmp_path, rules, QUEUES)) == [
        'rules.toml:8: unknown queue "suport"; did you mean "support"?',
        'rules.toml:14: unknown queue "sales"; there is "billing", "support" and "unrouted"',
        'rules.toml:18: unknown queue "biling"; did you mean "billing"?',
    ]


def test_all_problems_of_both_files_are_found_at_once(tmp_path: Path) -> None:
    rules = """[[touchpoint]]
address = "support@example.com"
name = "Example Support"
actve = true
imap = "imaps://imap.example.com"
smtp = "smtps://smtp.example.com"
linked_queues = ["suport"]

[[rule]]
name = "a"
if = { subjet = "x", class = "human" }
then = { queue = "biling", priority = "hi" }
"""
    gateway = 'hostnme = "a"\n' + QUEUES + "close_answered_after = 3\n"
    path = write(tmp_path, rules, gateway)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert [str(each) for each in caught.value.problems] == [
        'gateway.toml:1: unknown key "hostnme" in gateway.toml; did you mean "hostname"?',
        "gateway.toml:4: queues.close_answered_after needs a duration with its unit in quotes,"
        ' for example "5 days" or "9 min"',
        'rules.toml:4: unknown key "actve" in [[touchpoint]] "support@example.com"; did you mean "active"?',
        'rules.toml:7: unknown queue "suport"; did you mean "support"?',
        'rules.toml:11: unknown key "subjet" in if of [[rule]] "a"; did you mean "subject"?',
        'rules.toml:12: unknown then.priority "hi"; did you mean "high"?',
        'rules.toml:12: unknown queue "biling"; did you mean "billing"?',
    ]


def test_a_name_that_a_wrong_table_bears_is_not_called_unknown(tmp_path: Path) -> None:
    rules = TOUCHPOINT + "active = 3\n" + AGENT + 'touchpoints = ["support", "SUPPORT@example.com"]\n'
    assert said(check(tmp_path, rules)) == ["rules.toml:9: active must be true or false"]


# --- templates and images --------------------------------------------------------------------------------------------


def test_a_variable_that_an_agent_lacks_names_signature_line_and_agent(tmp_path: Path) -> None:
    (tmp_path / "support.html").write_text("<p>{{ agent.name }}</p>\n<p>{{ agent.title }}</p>\n")
    rules = f"""{TOUCHPOINT}
[touchpoint.signature]
html = "file:support.html"
{AGENT}variables = {{ title = "Engineer" }}
{AGENT.replace("ana@", "ben@")}
"""
    assert said(check(tmp_path, rules)) == [
        'support.html:2: signature of touchpoint "support": "agent.title" is missing for agent "ben@example.com";'
        " add it to the variables of the agent or the touchpoint, or write {{ agent.title | default('…') }}"
    ]


@pytest.mark.parametrize(
    "remedy",
    [
        {"rules": 'variables = { title = "Engineer" }\n'},
        {"html": "{{ agent.title | default('') }}"},
        {"html": "{% if agent.title is defined %}{{ agent.title }}{% endif %}"},
    ],
    ids=["the touchpoint has it", "default", "is defined"],
)
def test_a_variable_that_something_supplies_passes(tmp_path: Path, remedy: dict[str, str]) -> None:
    html = remedy.get("html", "{{ agent.title }}")
    rules = f'{TOUCHPOINT}{remedy.get("rules", "")}[touchpoint.signature]\nhtml = "{html}"\n{AGENT}'
    assert said(check(tmp_path, rules)) == []


def test_only_agents_who_may_write_need_the_variables(tmp_path: Path) -> None:
    others = AGENT.replace("ana@", "ben@") + "touchpoints = []\n" + AGENT.replace("ana@", "eva@") + "active = false\n"
    signature = '[touchpoint.signature]\ntext = "{{ agent.title }}"\n'
    assert said(check(tmp_path, TOUCHPOINT + signature + AGENT + 'variables = { title = "A" }\n' + others)) == []


TEMPLATES = {
    "misspelt variable": ("{{ agnt.name }}", 'unknown variable "agnt.name"; did you mean "agent"?'),
    "misspelt field": ("{{ touchpoint.adress }}", 'unknown variable "touchpoint.adress"; did you mean "address"?'),
    "misspelt field of the agent": ("{{ agent.nmae }}", 'unknown variable "agent.nmae"; did you mean "name"?'),
    "of auto-replies": ("{{ sender.name }}", 'unknown variable "sender.name"'),
    "syntax": ("{% if %}", "the template cannot be read"),
    "filter": ("{{ subject | uper }}", 'unknown filter "uper"; did you mean "upper"?'),
    "filter behind a condition": ("{% if date %}{{ subject | uper }}{% endif %}", 'unknown filter "uper"'),
    "include": ("{% include 'secrets' %}", "a template stands alone"),
}


@pytest.mark.parametrize(("template", "message"), TEMPLATES.values(), ids=TEMPLATES.keys())
def test_a_template_that_cannot_be_filled_is_explained_at_its_line(tmp_path: Path, template: str, message: str) -> None:
    rules = f'{TOUCHPOINT}[touchpoint.signature]\nhtml = """\n<p>Hello</p>\n{template}\n"""\n{AGENT}'
    line = rules[: rules.index(template)].count("\n") + 1
    problems = said(check(tmp_path, rules))
    assert len(problems) == 1
    assert problems[0].startswith(f'rules.toml:{line}: signature of touchpoint "support": {message}')


def test_an_automatic_reply_knows_the_sender_and_no_agent(tmp_path: Path) -> None:
    rules = f"""{TOUCHPOINT}variables = {{ phone = "1" }}
[touchpoint.auto_reply]
subject = "Auto: {{{{ subject }}}} {{{{ open }}}}"
html = "{{{{ sender.name | default('you') }}}} {{{{ agent.phone }}}} {{{{ agent.name }}}}"
{AGENT}"""
    problems = said(check(tmp_path, rules))
    assert len(problems) == 1
    assert '"agent.name" cannot be filled, for no agent writes it' in problems[0]


def test_active_and_empty_is_an_error(tmp_path: Path) -> None:
    rules = f"{TOUCHPOINT}\n[touchpoint.signature]\nactive = true\n[touchpoint.auto_reply]\nactive = true\n{AGENT}"
    problems = said(check(tmp_path, rules))
    assert [each.split(";")[0].partition(": ")[2] for each in problems] == [
        'the signature of touchpoint "support" is active and empty',
        'the automatic reply of touchpoint "support" is active and empty',
        'the automatic reply of touchpoint "support" has no subject',
    ]
    assert [each.partition(": ")[0] for each in problems] == ["rules.toml:10", "rules.toml:12", "rules.toml:12"]


IMAGES = {
    "png": (PNG, None),
    "jpeg": (b"\xff\xd8\xff\xe0", None),
    "gif": (b"GIF89a", None),
    "bmp": (b"BM", None),
    "largest": (PNG.ljust(50 * 1024 - 1, b"x"), None),
    "too large": (PNG.ljust(50 * 1024, b"x"), "has 51,200 bytes; an image must have fewer than 51,200 (50 KiB)"),
    "webp": (b"RIFF\0\0\0\0WEBP", "is not a JPG, GIF, PNG or BMP image"),
    "empty": (b"", "is not a JPG, GIF, PNG or BMP image"),
    "missing": (None, "does not exist"),
}


@pytest.mark.parametrize(("image", "message"), IMAGES.values(), ids=IMAGES.keys())
def test_an_image_is_judged_by_its_bytes(tmp_path: Path, image: bytes | None, message: str | None) -> None:
    (tmp_path / "signatures").mkdir()
    if image is not None:
        (tmp_path / "signatures" / "logo.txt").write_bytes(image)
    (tmp_path / "signatures" / "a.html").write_text(
        '<p>\n<IMG width="5" SRC=\'file:logo.txt\'>\n<img src="https://x/y">'
    )
    rules = f'{TOUCHPOINT}[touchpoint.signature]\nhtml = "file:signatures/a.html"\n{AGENT}'
    problems = said(check(tmp_path, rules))
    if message is None:
        assert problems == []
    else:
        assert len(problems) == 1
        assert problems[0].startswith('a.html:2: signature of touchpoint "support": image ')
        assert message in problems[0]


def test_an_image_that_is_no_readable_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    html = "<img src=file:loop><img src=file:folder><img src='file:{{ agent.login }}.png'>"
    problems = said(check(tmp_path, f'{TOUCHPOINT}[touchpoint.signature]\nhtml = "{html}"\n{AGENT}'))
    assert len(problems) == 3
    assert "loop cannot be read: too many levels of symbolic links" in problems[0]
    assert "folder is a directory; name a file" in problems[1]
    assert "image file:….png has a variable in its name; name one file" in problems[2]


def test_a_pipe_keeps_nobody_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    html = '<img src="file:pipe">'
    problems = said(check(tmp_path, f"{TOUCHPOINT}[touchpoint.signature]\nhtml = '{html}'\n{AGENT}"))
    assert len(problems) == 1
    assert "pipe cannot be read: it is no file but a pipe, a socket or a device" in problems[0]


TEXT_FILES = {
    "missing": (None, "does not exist; create it or correct the name"),
    "latin-1": ("Olá".encode("latin-1"), "is not UTF-8; save it as UTF-8"),
    "too large": (b"x" * (512 * 1024 + 1), "is larger than 512 KiB"),
}


@pytest.mark.parametrize(("content", "message"), TEXT_FILES.values(), ids=TEXT_FILES.keys())
def test_a_signature_file_that_cannot_be_used_is_named(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "a.html").write_bytes(content)
    rules = f'{TOUCHPOINT}[touchpoint.signature]\nhtml = "file:a.html"  # here\n{AGENT}'
    expect(rules, f"signature.html: {tmp_path / 'a.html'} {message}", said(check(tmp_path, rules)))


# --- what is written wrongly as TOML ---------------------------------------------------------------------------------

SYNTAX = {
    "no quotes": ("name = Support", 1, "the value cannot be read; text needs quotes"),
    "no value": ("\n\nname", 3, "a key must be followed by = and a value"),
    "twice": ('name = "a"\nname = "b"', 2, "this key is already set above"),
    "table twice": ("[spam]\n[hours]\n[spam]", 3, "this table is already there above"),
    "open list": ("a = 1\nnames = [\n1,\n2\n\n", 2, "the list has no closing ]"),
    "list without comma": ("names = [\n1\n2,\n]\n", 3, "the list has no closing ], or lacks a comma"),
    "open multi-line text": ('a = 1\nb = """\nc = 2\n\n', 2, "the text has no closing quote"),
    "open header": ("\n[spam", 2, "the table has no closing ]"),
    "open text": ('a = 1\nname = "Support\n', 2, "there is a character here that TOML does not allow"),
    "backslash": ("path = 'a'\nname = \"C:\\Windows\"", 2, "a \\ in double quotes must be written \\\\"),
    "two values": ('name = "a" "b"', 1, "something stands behind the value"),
    "inline table over lines": (
        "a = { b = 1,\n c = 2 }",
        1,
        "a key must begin here; a table in braces must stand on one line",
    ),
}


@pytest.mark.parametrize(("rules", "line", "message"), SYNTAX.values(), ids=SYNTAX.keys())
def test_what_is_not_toml_is_explained_at_its_line(tmp_path: Path, rules: str, line: int, message: str) -> None:
    problems = said(check(tmp_path, rules))
    assert len(problems) == 1
    assert problems[0].startswith(f"rules.toml:{line}: {message}")


def test_a_syntax_error_in_one_file_does_not_hide_the_other(tmp_path: Path) -> None:
    problems = said(check(tmp_path, "actve = true", "a ="))
    assert [each.partition(": ")[0] for each in problems] == ["gateway.toml:1", "rules.toml:1"]


def test_a_file_that_is_not_utf8_is_blamed_at_the_line(tmp_path: Path) -> None:
    path = write(tmp_path, SUPPORT)
    (tmp_path / "rules.toml").write_bytes(b"# a\n# Ol\xe1\n")
    with pytest.raises(ConfigError, match=r"rules\.toml:2: this line is not UTF-8"):
        load_config(path)


def test_nesting_without_end_is_a_problem_and_no_crash(tmp_path: Path) -> None:
    assert len(said(check(tmp_path, "a = " + "[" * 100_000))) == 1


def test_windows_editors_are_welcome(tmp_path: Path) -> None:
    path = write(tmp_path)
    (tmp_path / "rules.toml").write_bytes(b"\xef\xbb\xbf" + SUPPORT.replace("\n", "\r\n").encode())
    assert load_config(path).touchpoints["support"].name == "Example Support"


def test_missing_files_are_one_line_each(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "gateway.toml")
    assert str(caught.value) == (
        f"gateway.toml: {tmp_path / 'gateway.toml'} does not exist; create it, or name another with --config or"
        " MAIL_GATEWAY_CONFIG"
    )
    (tmp_path / "gateway.toml").write_text('rules = "r.toml"')
    with pytest.raises(ConfigError) as caught:
        load_config(tmp_path / "gateway.toml")
    assert str(caught.value).startswith(f"r.toml: {tmp_path / 'r.toml'} does not exist; create it")


def test_severity_is_part_of_what_is_shown(tmp_path: Path) -> None:
    warning = next(each for each in check(tmp_path, TOUCHPOINT) if each.severity is Severity.WARNING)
    assert str(warning).startswith("rules.toml:2: warning: nobody may write as touchpoint")
