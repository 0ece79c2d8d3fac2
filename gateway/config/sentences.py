"""From what pydantic found to a sentence for the person who wrote the file."""

from __future__ import annotations

import types
from collections.abc import Mapping
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from gateway.config.positions import Path
from gateway.config.values import suggest

_TYPES = {
    "string_type": "needs text in quotes",
    "bool_type": "must be true or false",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "tuple_type": 'must be a list in square brackets, for example ["…"]',
    "dict_type": "must be a table",
    "model_type": "must be a table",
    "model_attributes_type": "must be a table",
    "date_type": "needs a day, for example 2027-11-23",
}

# Filled from `address` when absent: whoever leaves them out has forgotten the address.
DERIVED = frozenset({"id", "login", "imap_login", "smtp_login"})


def explain(error: ValidationError, model: type[BaseModel], data: Any, shown: str) -> list[tuple[Path, str]]:
    """Return (path within `data`, sentence) for each thing wrong. `shown` names the table: `[[rule]] "invoices"`."""
    details = error.errors(include_url=False, include_input=False)
    suggested = {
        (*each["loc"][:-1], close)
        for each in details
        if each["type"] == "extra_forbidden" and (close := _close(model, each["loc"]))
    }
    found = []
    for each in details:
        path = each["loc"]
        if each["type"] == "missing" and (path in suggested or path[-1] in DERIVED):
            continue  # said already, by "did you mean"
        if each["type"] != "missing" and isinstance(data, dict) and path and path[0] not in data and len(details) > 1:
            continue  # filled in from a key that is wrong itself
        found.append((path, _sentence(each, model, data, shown)))
    return found


def _sentence(error: ErrorDetails, model: type[BaseModel], data: Any, shown: str) -> str:
    path, kind, context = error["loc"], error["type"], error.get("ctx", {})
    key = show_path(path)
    match kind:
        case "extra_forbidden":
            hint = _elsewhere(model, path, shown) or suggest(str(path[-1]), _keys(model, path))
            return f'unknown key "{path[-1]}" in {_table(path, shown)}{hint}'
        case "missing":
            return f'{_table(path, shown)} has no {path[-1]}; add {path[-1]} = "…"'
        case "value_error":
            message = str(context["error"])
            return f"{key}{'' if message.startswith(('needs ', 'must ')) else ':'} {message}" if key else message
        case "literal_error" | "enum":
            options = str(context["expected"]).replace("'", '"')
            written = _at(data, path)
            if not isinstance(written, str):
                return f"{key} must be {options}"
            close = suggest(written, [word.strip() for word in options.split('"')[1::2]])
            if "mean" in close:
                return f'unknown {key} "{written}"{close}'
            return f'unknown {key} "{written}"; use {options}'
        case "greater_than_equal":
            return f"{key} must be {context['ge']} or more"
        case "less_than_equal":
            return f"{key} must be {context['le']} or less"
    return f"{key} {_TYPES.get(kind, error['msg'].lower())}" if key else f"{shown} {_TYPES.get(kind, error['msg'])}"


def show_path(path: Path) -> str:
    """Return `pace.connections` for its path; positions in lists are told by the line."""
    return ".".join(str(part) for part in path if isinstance(part, str))


def _table(path: Path, shown: str) -> str:
    inner = show_path(path[:-1])
    if not inner:
        return shown
    return f"{inner} of {shown}" if shown.startswith("[") else f"[{inner}]"


def _elsewhere(model: type[BaseModel], path: Path, shown: str) -> str:
    """Return where the key belongs when it is one of the table around or of a table beside: a header is in between,
    or not commented in."""
    key = path[-1]
    if len(path) > 1 and key in keys_of(model):
        return (
            f"; it belongs to {shown}, above its tables" if shown.startswith("[") else "; it belongs above all tables"
        )
    for table, annotation in keys_of(model).items():
        inner = model_in(annotation)
        if inner is not None and inner is not model and key in keys_of(inner) and table != path[0]:
            return f"; it belongs to {_table((table, key), shown)}"
    return ""


def _at(data: Any, path: Path) -> Any:
    for part in path:
        if isinstance(data, dict):
            data = data if isinstance(part, int) else data.get(part)  # one_or_many counts where nothing is written
        elif isinstance(data, list | tuple) and isinstance(part, int) and part < len(data):
            data = data[part]
    return data


# --- which keys there are --------------------------------------------------------------------------------------------


def keys_of(model: type[BaseModel]) -> Mapping[str, Any]:
    """Return the type of each key of `model`, by the name it has in the file."""
    return {field.alias or name: field.annotation for name, field in model.model_fields.items()}


def _keys(model: type[BaseModel], path: Path) -> list[str]:
    """Return the keys that stand beside the last one of `path`."""
    annotation: Any = model
    for part in path[:-1]:
        if isinstance(part, str) and (inner := model_in(annotation)) is not None and _origin(annotation) is not dict:
            annotation = keys_of(inner).get(part)
        elif isinstance(part, str):
            annotation = model_in(annotation)
    inner = model_in(annotation)
    return list(keys_of(inner)) if inner else []


def _close(model: type[BaseModel], path: Path) -> str | None:
    hint = suggest(str(path[-1]), _keys(model, path))
    return hint.split('"')[1] if "did you mean" in hint else None


def _origin(annotation: Any) -> Any:
    origin = get_origin(annotation)
    return _origin(get_args(annotation)[0]) if origin is Annotated else origin


def model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the model inside `X | None`, `tuple[X, ...]`, `dict[str, X]` and the like, or None."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    origin = get_origin(annotation)
    if origin in (Annotated, Union, types.UnionType, tuple, dict):
        arguments = get_args(annotation)[:1] if origin is Annotated else get_args(annotation)
        return next((found for each in arguments if (found := model_in(each))), None)
    return None
