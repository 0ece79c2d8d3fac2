"""The MIME tree as offsets."""

from __future__ import annotations

import time

import pytest

from gateway.mime.structure import MAX_DEPTH, MAX_PARTS, Part, read_parameters, scan


def message(*lines: str, eol: str = "\r\n") -> bytes:
    return eol.join(lines).encode("latin-1")


def bodies(raw: bytes) -> list[tuple[str, bytes]]:
    return [(part.content_type, raw[part.body : part.end]) for part in scan(raw).walk() if not part.is_multipart]


def defects(tree: Part) -> list[str]:
    return [defect for part in tree.walk() for defect in part.defects]


@pytest.mark.parametrize("eol", ["\r\n", "\n"], ids=["crlf", "lf"])
def test_the_line_break_in_front_of_a_delimiter_belongs_to_the_delimiter(eol: str) -> None:
    raw = message(
        "Content-Type: multipart/mixed; boundary=b", "", "--b", "", "one", "--b", "Content-Type: text/html", "", "two",
        "", "--b--", "epilogue", eol=eol,
    )  # fmt: skip
    assert bodies(raw) == [("text/plain", b"one"), ("text/html", b"two" + eol.encode())]
    assert defects(scan(raw)) == []


def test_a_part_without_body_may_share_its_blank_line_with_the_delimiter() -> None:
    raw = message("Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: text/html", "", "--b--", "")
    tree = scan(raw)
    part = tree.children[0]
    assert (part.content_type, part.body, part.end) == ("text/html", raw.index(b"--b--"), raw.index(b"--b--"))
    assert defects(tree) == []


def test_a_boundary_that_begins_with_another_one_is_told_apart() -> None:
    raw = message(
        "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: multipart/alternative; boundary=bb", "",
        "--bb", "", "inner", "--bb--", "--b", "", "outer", "--b--", "",
    )  # fmt: skip
    assert [body for _, body in bodies(raw)] == [b"inner", b"outer"]


def test_an_outer_delimiter_ends_what_is_inside() -> None:
    raw = message(
        "Content-Type: multipart/mixed; boundary=b", "", "--b", "Content-Type: multipart/alternative; boundary=c", "",
        "--c", "", "inner", "--b--", "",
    )  # fmt: skip
    assert [body for _, body in bodies(raw)] == [b"inner"]
    assert defects(scan(raw)) == ["multipart without its end"]


def test_blanks_behind_a_delimiter_do_not_count() -> None:
    raw = message("Content-Type: multipart/mixed; boundary=b", "", "--b \t", "", "one", "--b--  ", "")
    assert [body for _, body in bodies(raw)] == [b"one"]


def test_a_forwarded_message_is_a_leaf() -> None:
    raw = message(
        "Content-Type: message/rfc822", "", "Content-Type: multipart/mixed; boundary=b", "", "--b", "", "--b--"
    )
    assert scan(raw).children == ()
    assert scan(raw).defects == ()


def test_parts_of_a_digest_are_messages() -> None:
    raw = message("Content-Type: multipart/digest; boundary=b", "", "--b", "", "Subject: x", "", "y", "--b--", "")
    assert [kind for kind, _ in bodies(raw)] == ["message/rfc822"]


@pytest.mark.parametrize(
    ("lines", "defect"),
    [
        (["Content-Type: multipart/mixed", "", "x"], "multipart without a boundary"),
        (["Content-Type: multipart/mixed; boundary=b", "", "x"], "no part behind the boundary"),
        (["Content-Type: multipart/mixed; boundary=b", "", "--b", "", "x"], "multipart without its end"),
        (["Content-Type: nonsense", "", "x"], "unreadable content-type"),
        (["Content-Type: text/html", "Content-Type: text/plain", "", "x"], "two fields named content-type"),
        (["Subject: x", "no field", "", "x"], "no blank line behind the header"),
        (["a:" * 200_000, "", "x"], "header too long"),
        (["a:"] * 2_000, "header too long"),
        (
            ["Content-Type: multipart/mixed; boundary=b", "", *["--bx"] * 10_001, "--b--"],
            "too many lines that look like delimiters",
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_odd_is_named(lines: list[str], defect: str) -> None:
    assert defect in defects(scan(message(*lines)))


def test_the_first_content_type_counts() -> None:
    assert scan(message("Content-Type: text/html", "Content-Type: text/plain", "", "x")).content_type == "text/html"


def test_nesting_ends_at_its_limit() -> None:
    lines: list[str] = []
    for level in range(MAX_DEPTH + 5):
        lines += [f"Content-Type: multipart/mixed; boundary=b{level}.", "", f"--b{level}."]
    tree = scan(message(*lines, "", "deep"))
    assert "nested too deeply" in defects(tree)
    assert sum(1 for _ in tree.walk()) == MAX_DEPTH + 1


def test_parts_end_at_their_limit() -> None:
    raw = message("Content-Type: multipart/mixed; boundary=b", "", *["--b", "", "x"] * (MAX_PARTS + 100), "--b--")
    tree = scan(raw)
    assert "too many parts" in defects(tree)
    assert sum(1 for _ in tree.walk()) == MAX_PARTS


def test_an_mbox_line_in_front_is_passed_over() -> None:
    tree = scan(message("From a@b Mon Jan 1", "Subject: x", "", "y"))
    assert [field.name for field in tree.fields] == ["subject"]
    assert scan(b"From nobody").fields == ()


def test_folds_are_part_of_a_field_and_its_offsets_cover_it() -> None:
    raw = message("A: 1", "Subject : one", "\ttwo", "B: 3", "", "x")
    field = scan(raw).field("subject")
    assert field is not None
    assert field.text == "one two"
    assert raw[field.start : field.end] == b"Subject : one\r\n\ttwo\r\n"
    assert scan(raw).field("nothing") is None


@pytest.mark.parametrize(
    ("value", "main", "parameters"),
    [
        ("text/plain", "text/plain", {}),
        ("TEXT/Plain; CharSet=UTF-8", "text/plain", {"charset": "UTF-8"}),
        ('text/plain; charset="utf-8"; format=flowed', "text/plain", {"charset": "utf-8", "format": "flowed"}),
        ("text/plain (plain); charset=us-ascii (Plain text)", "text/plain", {"charset": "us-ascii"}),
        ('a/b; boundary="a;b=\\"c\\""', "a/b", {"boundary": 'a;b="c"'}),
        ('a/b; boundary="never closed; x=y', "a/b", {"boundary": "never closed; x=y"}),
        ('a/b; name*0=one; name*1=" two"', "a/b", {"name": "one two"}),
        ("a/b; name*=utf-8''caf%C3%A9.pdf", "a/b", {"name": "café.pdf"}),
        ("a/b; name*1*=%A9.pdf; name*0*=utf-8'en'caf%C3", "a/b", {"name": "café.pdf"}),
        ("a/b; name*=nonsense''a%FF", "a/b", {"name": "aÿ"}),
        ("a/b; name*x=1; =2;;; c=3; c=4", "a/b", {"c": "3"}),
        ("a/b;\r\n\tboundary=x", "a/b", {"boundary": "x"}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_parameters_are_read_as_senders_write_them(value: str, main: str, parameters: dict[str, str]) -> None:
    found_main, found = read_parameters(value.encode("latin-1"))
    assert found_main == main
    assert dict(found) == parameters


def test_a_file_name_comes_from_the_disposition_or_else_from_the_type() -> None:
    both = scan(message("Content-Type: a/b; name=one", "Content-Disposition: ATTACHMENT; filename=two", "", ""))
    assert (both.filename, both.disposition) == ("two", "attachment")
    assert scan(message("Content-Type: a/b; name=one", "", "")).filename == "one"


@pytest.mark.parametrize("raw", [b"", b"\n", b"\r\n", b":", b"a", b"a:", b"a:\n", b"\r", b"From ", b"\xff" * 10])
def test_what_is_no_message_still_has_a_tree(raw: bytes) -> None:
    tree = scan(raw)
    assert tree.content_type == "text/plain"
    assert 0 <= tree.body <= tree.end == len(raw)


@pytest.mark.parametrize("unit", [b";", b" ;", b";\r\n ", b"a;", b"a ", b"a=b;", b'a="', b"("], ids=repr)
def test_parameters_cost_no_more_than_their_length(unit: bytes) -> None:
    begun = time.process_time()
    content_type, parameters = read_parameters(b"text/plain; charset=utf-8;" + unit * (200_000 // len(unit)))
    assert (content_type, parameters["charset"]) == ("text/plain", "utf-8")
    assert time.process_time() - begun < 10  # it was minutes
