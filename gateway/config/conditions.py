"""The `if` of a rule: from TOML to a tree of All, AnyOf, Not and Test."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, ClassVar, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator, model_validator

from gateway.config.base import Model
from gateway.config.values import Flag, Patterns, Size, one_or_many, some
from gateway.model import MessageClass

# --- the tree --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Test:
    """True when `field` meets any of `values`: patterns for text, True/False, bytes for `size_over`, a number for
    `spam_score_over`, "NAME:open" or "NAME:closed" for `hours`. A header field is called `header.x-name`.
    """

    __test__: ClassVar[bool] = False  # it is not a test of ours, whatever pytest thinks of the name

    field: str
    values: tuple[str | int | float | bool, ...]


@dataclass(frozen=True, slots=True)
class All:
    """True when every one is; also when there is none: a rule without `if` is for all mail."""

    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    conditions: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class Not:
    condition: Condition


Condition = All | AnyOf | Not | Test

# --- as written ------------------------------------------------------------------------------------------------------

# RFC 8601 §2.7; `dmarc` there is a value of RFC 7489 §11.2.
_SpfResult = Literal["pass", "fail", "softfail", "neutral", "none", "policy", "temperror", "permerror"]
_DkimResult = Literal["pass", "fail", "neutral", "none", "policy", "temperror", "permerror"]
_DmarcResult = Literal["pass", "fail", "none", "temperror", "permerror"]


def parse_hours_state(value: object) -> str:
    """Return "office:open" or "office:closed"; whether there are such hours is checked where they are known."""
    name, colon, state = value.rpartition(":") if isinstance(value, str) else ("", "", "")
    if not colon or not name or state not in ("open", "closed"):
        raise ValueError('needs the name of hours and a state, for example "office:open" or "office:closed"')
    return f"{name}:{state}"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) > 1e9:
        raise ValueError("needs a number, for example 5.0")
    return value


HoursState = Annotated[str, PlainValidator(parse_hours_state)]


class If(Model):
    """Every key given must hold."""

    from_: Patterns | None = Field(default=None, alias="from")
    to: Patterns | None = None
    cc: Patterns | None = None
    subject: Patterns | None = None
    return_path: Patterns | None = None
    body: Patterns | None = None
    header: dict[str, Patterns] | None = None
    attachment_name: Patterns | None = None
    attachment_type: Patterns | None = None
    has_attachment: Flag | None = None
    size_over: Size | None = None
    spf: Annotated[tuple[_SpfResult, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = None
    dkim: Annotated[tuple[_DkimResult, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = None
    dmarc: Annotated[tuple[_DmarcResult, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = None
    spam_score_over: Annotated[float, PlainValidator(_number)] | None = None
    class_: Annotated[tuple[MessageClass, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = Field(
        default=None, alias="class"
    )
    known_sender: Flag | None = None
    hours: Annotated[tuple[HoursState, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = None
    all_: Annotated[tuple[If, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = Field(
        default=None, alias="all"
    )
    any_: Annotated[tuple[If, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = Field(
        default=None, alias="any"
    )
    not_: Annotated[tuple[If, ...], BeforeValidator(one_or_many), AfterValidator(some)] | None = Field(
        default=None, alias="not"
    )

    @model_validator(mode="before")
    @classmethod
    def _gather_headers(cls, data: Any) -> Any:
        """`"header.x-name" = …` is what people write; TOML reads it as one key."""
        if not isinstance(data, dict) or not any(key.startswith("header.") for key in data):
            return data
        plain = {key: value for key, value in data.items() if not key.startswith("header.")}
        headers = {key.removeprefix("header."): value for key, value in data.items() if key.startswith("header.")}
        there = plain.get("header", {})
        return plain | {"header": there | headers if isinstance(there, dict) else there}

    @cached_property
    def tree(self) -> All:
        """The same as a tree; cheap questions first, so that costly ones are rarely asked."""
        found: list[Condition] = []
        for name, key in _PLAIN_KEYS.items():
            if (value := getattr(self, name)) is None:
                continue
            found.append(Test(key, tuple(map(_plain, value)) if isinstance(value, tuple) else (value,)))
        found += [Test(f"header.{name.lower()}", tuple(patterns)) for name, patterns in (self.header or {}).items()]
        if self.all_ is not None:
            found.append(All(tuple(each.tree for each in self.all_)))
        if self.any_ is not None:
            found.append(AnyOf(tuple(each.tree for each in self.any_)))
        if self.not_ is not None:  # a list means "any of", so none of them may hold
            parts = tuple(each.tree for each in self.not_)
            found.append(Not(parts[0] if len(parts) == 1 else AnyOf(parts)))
        return All(tuple(found))


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, MessageClass) else value


_PLAIN_KEYS = {
    "class_": "class",
    "from_": "from",
    **{name: name for name in ("to", "cc", "subject", "return_path", "size_over", "spf", "dkim", "dmarc")},
    **{name: name for name in ("spam_score_over", "known_sender", "hours", "has_attachment")},
    **{name: name for name in ("attachment_name", "attachment_type", "body")},
}
