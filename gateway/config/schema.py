"""JSON Schema of both files, made from the models: editors complete and check while an admin types.

`python -m gateway.config.schema [DIRECTORY]` (`make schema`) writes DIRECTORY/schema/*.json; DIRECTORY, by default etc,
has the commented files, whose comments become the descriptions. A schema knows each key by itself and nothing of the
others: what it accepts `mail-gateway check` may yet refuse, never the other way round.
"""

from __future__ import annotations

import json
import sys
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from pydantic import BaseModel
from pydantic.json_schema import GenerateJsonSchema, JsonSchemaValue
from pydantic_core import core_schema

from gateway.config import manual
from gateway.config.gateway_file import GatewayFile
from gateway.config.providers import PROFILES
from gateway.config.rules_file import RulesFile
from gateway.config.sentences import DERIVED
from gateway.config.values import DURATION_UNITS, SIZE_UNITS
from gateway.model import REPLY_TO

FILES: Final[Mapping[str, type[BaseModel]]] = {"gateway": GatewayFile, "rules": RulesFile}
_DRAFT: Final = "http://json-schema.org/draft-07/schema#"  # what the editors' TOML extensions know
_DEFINITIONS: Final = "definitions"


def _any_case(words: Mapping[str, Any]) -> str:
    """Return an expression for one of the words in any capitals; JSON Schema has no flag for that."""
    longest_first = sorted(words, key=len, reverse=True)
    return "|".join("".join(f"[{letter}{letter.upper()}]" for letter in word) for word in longest_first)


def _text(pattern: str) -> JsonSchemaValue:
    return {"type": "string", "pattern": pattern}


def _server(protocol: str) -> JsonSchemaValue:
    return _text(rf"^\s*{protocol}(s|\+insecure)?://")


_AMOUNT: Final = r"\s*[0-9]{1,15}(\.[0-9]{1,6})?\s*"
_DURATION: Final = _text(rf"^({_AMOUNT}({_any_case(DURATION_UNITS)})\s*)+$")
_WORD: Final = _text(r"^\s*\S+\s*$")
_NAME: Final = _text(r"\S")
_URL: Final = _text(r"^$|^(rspamd\+https?|spamd)://.+:[0-9]+/?$")

# How that is written which a function of ours reads.
_WRITTEN: Final[Mapping[str, JsonSchemaValue]] = {
    "parse_duration": _DURATION,
    "parse_size": {"anyOf": [{"type": "integer", "minimum": 1}, _text(rf"^{_AMOUNT}({_any_case(SIZE_UNITS)})\s*$")]},
    "parse_time_zone": _NAME,
    "parse_host_name": _NAME,
    "parse_address": _text(r"^\s*[^\s@]+@[^\s@]+\s*$"),
    "parse_address_pattern": _text("@"),
    "parse_name": _NAME,
    "parse_word": _WORD,
    "parse_queue": _NAME,
    "parse_variables": {"type": "object", "additionalProperties": {"type": "string"}},
    "parse_pattern": {"type": "string", "minLength": 1},
    "parse_server imap": _server("imap"),
    "parse_server smtp": _server("smtp"),
    "parse_listener imap": _server("imap"),
    "parse_listener smtp": _server("smtp"),
    "parse_http_listener": {"type": "string"},
    "parse_content": {"type": "string"},
    "parse_path": {"type": "string"},
    "_parse_answering": {"enum": [True, False, REPLY_TO]},
    "_parse_needed_path": _text("."),
    "_parse_network": _text(r"^[0-9A-Fa-f:.]+(/[0-9.]+)?$"),
    "_parse_resolver": _text(r"^[0-9A-Fa-f:.\[\]]+$"),
    "_parse_domain": _text(r"\."),
    "parse_secret": _text(r"^$|^(file|env|credential|command):"),
    "parse_opening": _text("[0-9]{1,2}:[0-9]{2}"),
    "parse_holiday": _text(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}$"),
    "parse_hours_state": _text(".:(open|closed)$"),
    "_hours_or_always": _text("^always$|.:(open|closed)$"),
    "_special_folder": {"type": "string"},
    "_provider": {"type": "string", "enum": list(PROFILES)},
    "_from_name": {"anyOf": [{"type": "string", "enum": ["touchpoint", "client"]}, _text(r"\{\{")]},
    "_authority": {"type": "string"},
    "_history": {"anyOf": [{"type": "string", "enum": ["new", "all"]}, _DURATION]},
    "_after_fetch": {"anyOf": [{"type": "string", "enum": ["keep", "seen"]}, _text(r"^move:\s*\S")]},
    "_email": _text("^$|@"),
    "_password_hash": _text(r"^$|^\$argon2"),
    "_scanner": _URL,
    "_score": {"type": "number"},
    "_number": {"type": "number"},
}


def compose(name: str, directory: Path) -> dict[str, Any]:
    """Return the schema of `gateway` or `rules`, with what the commented file in `directory` tells about the keys."""
    found = FILES[name].model_json_schema(
        ref_template=f"#/{_DEFINITIONS}/{{model}}", schema_generator=_Generator, mode="validation"
    )
    found[_DEFINITIONS] = found.pop("$defs", {})
    schema: dict[str, Any] = _without_titles(found)
    for entry in manual.read((directory / f"{name}.toml").read_text("utf-8")):
        _describe(schema, entry)
    return {"$schema": _DRAFT, "title": f"{name}.toml of mail-gateway", **schema}


class _Generator(GenerateJsonSchema):
    """Values are described as they are written, not as what they become."""

    def function_plain_schema(self, schema: core_schema.PlainValidatorFunctionSchema) -> JsonSchemaValue:
        function: Any = schema["function"]["function"]
        name = function.func.__name__ if isinstance(function, partial) else function.__name__
        words = [name, *(function.keywords.values() if isinstance(function, partial) else ())]
        return dict(_WRITTEN[" ".join(words)])  # a KeyError: tell above how it is written

    def function_before_schema(self, schema: core_schema.BeforeValidatorFunctionSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if getattr(schema["function"]["function"], "__name__", "") != "one_or_many":
            return inner
        return {"anyOf": [inner["items"], inner]}

    def function_after_schema(self, schema: core_schema.AfterValidatorFunctionSchema) -> JsonSchemaValue:
        inner = self.generate_inner(schema["schema"])
        if getattr(schema["function"]["function"], "__name__", "") == "some":
            for each in inner.get("anyOf", [inner]):
                if each.get("type") == "array":
                    each["minItems"] = 1
        return inner

    def default_schema(self, schema: core_schema.WithDefaultSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # the defaults that people can write are in the manual

    def nullable_schema(self, schema: core_schema.NullableSchema) -> JsonSchemaValue:
        return self.generate_inner(schema["schema"])  # TOML has no null

    def model_schema(self, schema: core_schema.ModelSchema) -> JsonSchemaValue:
        found = super().model_schema(schema)
        found.pop("description", None)  # docstrings are for us
        properties = found.get("properties", {})
        if "address" in properties:
            found["required"] = [key for key in found["required"] if key not in DERIVED]
        if (header := properties.get("header")) is not None:
            found["patternProperties"] = {r"^header\.": header["additionalProperties"]}
        return found


def _without_titles(found: Any, *, is_named: bool = False) -> Any:
    """Return the schema without what pydantic calls things; `is_named`: its keys are those of a file."""
    if isinstance(found, dict):
        return {
            key: _without_titles(value, is_named=not is_named and key in ("properties", _DEFINITIONS))
            for key, value in found.items()
            if is_named or key != "title"
        }
    return [_without_titles(each) for each in found] if isinstance(found, list) else found


def _describe(schema: dict[str, Any], entry: manual.Entry) -> None:
    """Put what is told about a key where the schema has it."""
    node, holder, key = schema, schema, ""
    for part in entry.path:
        node = _resolved(schema, node)
        holder, key = (
            (node["properties"], part) if part in node.get("properties", {}) else (node, "additionalProperties")
        )
        node = holder[key]
    told = [entry.text]
    more: dict[str, Any] = {}
    if entry.default.startswith("("):
        told.append(f"Default: {entry.default[1:-1]}.")
    elif entry.default not in ("", "none", "mandatory"):
        more["default"] = tomllib.loads(f"it = {entry.default}")["it"]
    if entry.effect == "restart":
        told.append("Needs a restart.")
    if description := " ".join(filter(None, told)):
        more["description"] = description
    if more:
        holder[key] = {**({"allOf": [node]} if "$ref" in node else node), **more}


def _resolved(schema: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    """Return the table that stands behind a reference, or in a list."""
    while True:
        if "allOf" in node:
            node = node["allOf"][0]
        elif "$ref" in node:
            node = schema[_DEFINITIONS][node["$ref"].rpartition("/")[2]]
        elif node.get("type") == "array":
            node = node["items"]
        else:
            return node


def show(name: str, directory: Path) -> str:
    """Return the text of the schema's file."""
    return json.dumps(compose(name, directory), indent=2, ensure_ascii=False) + "\n"


def main(directory: Path) -> None:
    """Write both schemas below `directory`."""
    target = directory / "schema"
    target.mkdir(exist_ok=True)
    for name in FILES:
        (target / f"{name}.schema.json").write_text(show(name, directory), "utf-8")


if __name__ == "__main__":
    main(Path(*sys.argv[1:2] or ["etc"]))
