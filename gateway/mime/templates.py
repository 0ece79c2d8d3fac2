"""The one Jinja2 environment for text that admins write: sandboxed, nothing undefined passes, HTML is escaped.

Templates come from the admin, values come from agents and from strangers' mail. A value never becomes template
text, and in HTML it is always escaped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, Final, NoReturn

from jinja2 import StrictUndefined, Template, TemplateError, TemplateSyntaxError, Undefined, UndefinedError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.errors import GatewayError

MAX_RENDERED: Final = 512 * 1024  # characters; a loop in a template must not fill the memory


class TemplateFault(GatewayError):
    """A template that cannot be read or filled. The text says what is wrong; `line` counts from 1, or is None."""

    def __init__(self, message: str, line: int | None = None) -> None:
        super().__init__(message)
        self.line = line


class Values(Mapping[str, Any]):
    """What a template reaches as `name.key`.

    Not a dict: there `agent.items` or `agent.copy` would be a method and never the variable of that name. `optional`
    keys are undefined for `default(…)` and `is defined`, but shown as nothing instead of being an error.
    """

    __slots__ = ("_optional", "_values")

    def __init__(self, values: Mapping[str, Any], optional: frozenset[str] = frozenset()) -> None:
        self._values = values
        self._optional = optional

    def __getitem__(self, key: str) -> Any:
        if key in self._values:
            return self._values[key]
        if key in self._optional:
            return Undefined(name=key)
        raise KeyError(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


class _Environment(ImmutableSandboxedEnvironment):
    def getattr(self, obj: Any, attribute: str) -> Any:
        if isinstance(obj, Values):  # a key before a method, also for `agent.get`
            try:
                return obj[attribute]
            except KeyError:
                return self.undefined(f"{attribute!r} is not set", obj=obj, name=attribute)
        return super().getattr(obj, attribute)


_HTML: Final = _Environment(autoescape=True, undefined=StrictUndefined, keep_trailing_newline=True)
_TEXT: Final = _Environment(autoescape=False, undefined=StrictUndefined, keep_trailing_newline=True)


def render_html(source: str, context: Mapping[str, Any]) -> str:
    """Return the filled HTML template, every value escaped. TemplateFault when it cannot be filled."""
    return _render(_compile(_HTML, source), context)


def render_text(source: str, context: Mapping[str, Any]) -> str:
    """Return the filled text template, values as they are. TemplateFault when it cannot be filled."""
    return _render(_compile(_TEXT, source), context)


def render_line(source: str, context: Mapping[str, Any]) -> str:
    """Return the filled template on one line: for header fields, where a line break would begin another field."""
    return " ".join(render_text(source, context).split())


@lru_cache(maxsize=512)
def _compile(environment: _Environment, source: str) -> Template:
    try:
        return environment.from_string(source)
    except TemplateSyntaxError as error:
        raise TemplateFault(error.message or "not a template", error.lineno) from None
    except (RecursionError, ValueError) as error:
        raise TemplateFault(f"not a template: {error}") from None


def _render(template: Template, context: Mapping[str, Any]) -> str:
    pieces, length = [], 0
    try:
        for piece in template.generate(context):
            length += len(piece)
            if length > MAX_RENDERED:
                raise TemplateFault(f"the result is longer than {MAX_RENDERED} characters")
            pieces.append(piece)
    except (
        TemplateError,
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        _explain(error)
    return "".join(pieces)


def _explain(error: Exception) -> NoReturn:
    line, trace = None, error.__traceback__
    while trace is not None:  # Jinja rewrites the traceback so that its own frames carry the template's lines
        if trace.tb_frame.f_code.co_filename == "<template>":
            line = trace.tb_lineno
        trace = trace.tb_next
    what = str(error) if isinstance(error, UndefinedError) else f"{type(error).__name__}: {error}"
    raise TemplateFault(what, line) from None
