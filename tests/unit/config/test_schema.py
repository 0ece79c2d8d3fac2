"""The JSON Schemas that are shipped: made from the models, true to what the loader takes, and of use in an editor."""

from __future__ import annotations

import json
import re
import tomllib
from datetime import date
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from gateway.config import manual, schema
from tests.support.desk import RULES
from tests.unit.config.writing import SUPPORT, check, said

ETC = Path(__file__).parents[3] / "etc"


def plain(value: Any) -> Any:
    """Return what an editor hands to the schema: TOML's dates are text to JSON."""
    if isinstance(value, dict):
        return {key: plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [plain(inner) for inner in value]
    return value.isoformat() if isinstance(value, date) else value


def complaints(name: str, text: str) -> list[str]:
    shipped = json.loads((ETC / "schema" / f"{name}.schema.json").read_text("utf-8"))
    checker = jsonschema.Draft7Validator(shipped, format_checker=jsonschema.FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(plain(tomllib.loads(text)))]


@pytest.mark.parametrize("name", schema.FILES)
def test_what_is_shipped_is_what_is_generated(name: str) -> None:
    shipped = (ETC / "schema" / f"{name}.schema.json").read_text("utf-8")
    assert shipped == schema.show(name, ETC), "run: make schema"


@pytest.mark.parametrize("name", schema.FILES)
def test_it_is_a_schema_of_the_draft_that_it_names(name: str) -> None:
    shipped = json.loads((ETC / "schema" / f"{name}.schema.json").read_text("utf-8"))
    assert shipped["$schema"] == jsonschema.Draft7Validator.META_SCHEMA["$schema"]
    jsonschema.Draft7Validator.check_schema(shipped)
    assert not re.search(r'"\$defs|"null"', json.dumps(shipped))


@pytest.mark.parametrize("name", schema.FILES)
def test_both_files_as_shipped_name_their_schema_and_meet_it(name: str) -> None:
    text = (ETC / f"{name}.toml").read_text("utf-8")
    begin = re.match(r"#:schema (\S+)\n", text)
    assert begin is not None
    assert (ETC / begin[1]).is_file()
    assert complaints(name, text) == []
    assert complaints(name, re.sub(r"^#(?=[a-z\[])", "", text, flags=re.MULTILINE)) == []


@pytest.mark.parametrize("text", [SUPPORT, RULES.replace("{hash}", "$argon2id$x"), ""], ids=["small", "site", "empty"])
def test_rules_that_load_meet_it(text: str) -> None:
    assert complaints("rules", text) == []


TAKEN = {
    "one or many": '[[rule]]\nname = "a"\nif = { from = "*@a.example", class = ["human"], not = [{ to = "a" }] }',
    "a header with a dot": '[[rule]]\nname = "a"\nif = { "header.x-spam" = "*", not.header.list-id = ["*"] }',
    "conditions within conditions": '[[rule]]\nname = "a"\nif.any = [{ all = { body = "/x/" } }, { to = "*" }]',
    "a size in bytes": '[[rule]]\nname = "a"\nif.size_over = 5000',
    "a whole number for a score": "[spam]\nquarantine_over = 6",
    "units in capitals": '[spam]\nkeep_quarantine = "2 Weeks 3 D"',
    "days as dates": '[hours.office]\nopen = ["mon 9:00-18:00"]\nholidays = [2026-12-25, "2026-12-26"]',
    "empty for none": '[[agent]]\nlogin = "a"\nname = "A"\nemail = ""\npassword_hash = ""\n[spam]\nscanner = ""',
}


@pytest.mark.parametrize("text", TAKEN.values(), ids=TAKEN.keys())
def test_every_way_of_writing_is_taken(tmp_path: Path, text: str) -> None:
    assert said(check(tmp_path, text)) == []
    assert complaints("rules", text) == []


MISTAKEN = {
    "unknown table": ("[rules]", "'rules' was unexpected"),
    "unknown key": ('[[agent]]\nlogin = "a"\nname = "A"\nrolle = "x"', "'rolle' was unexpected"),
    "unknown condition": ('[[rule]]\nname = "a"\nif.any = [{ subjekt = "x" }]', "is not valid under any"),
    "missing key": ('[[touchpoint]]\naddress = "a@b.example"', "'name' is a required property"),
    "no address": ('[[touchpoint]]\nname = "A"', "'address' is a required property"),
    "wrong word": ('[[touchpoint]]\naddress = "a@b.example"\nname = "A"\ndirection = "in"', "is not one of ['inbound'"),
    "wrong provider": ('[[touchpoint]]\naddress = "a@b.example"\nname = "A"\nprovider = "gmial"', "is not one of"),
    "a password itself": ('[[touchpoint]]\naddress = "a@b.example"\nname = "A"\npassword = "x"', "does not match"),
    "text for a flag": ('[[rule]]\nname = "a"\nstop = "yes"', "is not of type 'boolean'"),
    "no unit": ('[spam]\nkeep_quarantine = "30"', "does not match"),
    "empty list": ('[[rule]]\nname = "a"\nif.from = []', "is not valid under any"),
    "one bracket too few": ('[touchpoint]\naddress = "a@b.example"', "is not of type 'array'"),
}


@pytest.mark.parametrize(("text", "told"), MISTAKEN.values(), ids=MISTAKEN.keys())
def test_a_slip_is_seen_while_typing(text: str, told: str) -> None:
    found = complaints("rules", text)
    assert any(told in each for each in found), found


def test_gateway_toml_is_checked_alike() -> None:
    assert complaints("gateway", 'hostname = "a.example"\n[submission]\nlisten = ["smtps://:465"]') == []
    assert complaints("gateway", "[oauth.microsoft]\nclient_secret_expires = 2027-11-23") == []
    assert complaints("gateway", '[submission]\nlisten = ["https://:465"]')
    assert complaints("gateway", '[outbound]\ngive_up_after = "5"')


@pytest.mark.parametrize("name", schema.FILES)
def test_whoever_hovers_over_a_key_reads_what_the_manual_says(name: str) -> None:
    shown = (ETC / "schema" / f"{name}.schema.json").read_text("utf-8")
    for entry in manual.read((ETC / f"{name}.toml").read_text("utf-8")):
        assert json.dumps(entry.text, ensure_ascii=False)[1:-1] in shown, entry.path


def test_defaults_are_offered() -> None:
    spam = schema.compose("rules", ETC)["definitions"]["Spam"]["properties"]
    assert (spam["quarantine_over"]["default"], spam["keep_quarantine"]["default"]) == (6.0, "30 days")
