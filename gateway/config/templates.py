"""What a Jinja template uses, found without rendering it, so that `check` can say what would be missing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from jinja2 import TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gateway.config.values import suggest

# Attributes by variable; None: a plain value. `agent` has its variables too.
COMMON = {
    "agent": frozenset({"name", "login"}),
    "touchpoint": frozenset({"name", "address"}),
    "subject": None,
    "date": None,
}
SIGNATURE = COMMON | {"customer": frozenset({"name", "address"})}
AUTO_REPLY = COMMON | {"sender": frozenset({"name", "address"}), "open": None}


class TemplateProblem(Exception):
    """A template that cannot be used; `line` counts from 1 within it."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.message = message
        self.line = line


@dataclass(frozen=True, slots=True)
class Use:
    """`variable` alone or with the attribute. `safe`: behind `default(…)` or `is defined`, so it may be missing."""

    variable: str
    attribute: str | None
    line: int
    safe: bool


@cache
def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(autoescape=True)


def find_uses(source: str) -> list[Use]:
    """Return every use of a variable that the template does not set itself. Raises TemplateProblem."""
    environment = _environment()
    try:
        tree = environment.parse(source)
        _check_names(tree, environment)
        environment.compile(source)
    except TemplateSyntaxError as error:
        raise TemplateProblem(f"the template cannot be read: {error.message}", error.lineno) from None
    except RecursionError:
        raise TemplateProblem("the template is nested far too deep", 1) from None
    free = find_undeclared_variables(tree) - set(environment.globals)
    return [use for use in _walk(tree, frozenset()) if use.variable in free]


def _check_names(tree: nodes.Template, environment: ImmutableSandboxedEnvironment) -> None:
    """Raise TemplateProblem for what compiling forgives or explains less well."""
    for kind in (nodes.Include, nodes.Import, nodes.FromImport, nodes.Extends):
        for node in tree.find_all(kind):
            raise TemplateProblem("a template stands alone: it cannot include, import or extend another", node.lineno)
    for filter_ in tree.find_all(nodes.Filter):
        if filter_.name not in environment.filters:
            hint = suggest(filter_.name, environment.filters)
            raise TemplateProblem(f'unknown filter "{filter_.name}"{hint}', filter_.lineno)
    for test in tree.find_all(nodes.Test):
        if test.name not in environment.tests:
            raise TemplateProblem(f'unknown test "{test.name}"{suggest(test.name, environment.tests)}', test.lineno)


def _walk(node: nodes.Node, defined: frozenset[tuple[str, str | None]]) -> Iterator[Use]:
    reference = _reference(node)
    if reference is not None:
        yield Use(*reference, node.lineno, reference in defined)
        if isinstance(node, nodes.Getitem):
            yield from _walk(node.arg, defined)
        return
    match node:
        case nodes.Filter(name="default" | "d") | nodes.Test(name="defined" | "undefined"):
            inner = _reference(node.node) if node.node is not None else None
            if inner is not None:
                yield Use(*inner, node.lineno, safe=True)
            elif node.node is not None:
                yield from _walk(node.node, defined)
            for argument in node.args:
                yield from _walk(argument, defined)
        case nodes.If():
            yield from _walk(node.test, defined)
            yields, otherwise = _proven(node.test, True), _proven(node.test, False)
            for each in node.body:
                yield from _walk(each, defined | yields)
            for each in (*node.elif_, *node.else_):
                yield from _walk(each, defined | otherwise)
        case nodes.CondExpr():
            yield from _walk(node.test, defined)
            yield from _walk(node.expr1, defined | _proven(node.test, True))
            if node.expr2 is not None:
                yield from _walk(node.expr2, defined | _proven(node.test, False))
        case nodes.And():
            yield from _walk(node.left, defined)
            yield from _walk(node.right, defined | _proven(node.left, True))
        case nodes.Or():
            yield from _walk(node.left, defined)
            yield from _walk(node.right, defined | _proven(node.left, False))
        case _:
            for each in node.iter_child_nodes():
                yield from _walk(each, defined)


def _reference(node: nodes.Node) -> tuple[str, str | None] | None:
    """Return ("agent", "title") for `agent.title` and `agent["title"]`, ("subject", None) for `subject`."""
    match node:
        case nodes.Getattr(node=nodes.Name(name=name, ctx="load"), attr=attribute):
            return str(name), str(attribute)
        case nodes.Getitem(node=nodes.Name(name=name, ctx="load"), arg=nodes.Const(value=str() as attribute)):
            return str(name), str(attribute)
        case nodes.Name(name=name, ctx="load"):
            return str(name), None
    return None


def _proven(test: nodes.Node, truth: bool) -> frozenset[tuple[str, str | None]]:
    """Return what is defined for certain where `test` came out as `truth`."""
    match test:
        case nodes.Test(name="defined" | "undefined", node=inner) if (test.name == "defined") is truth:
            reference = _reference(inner)
            return frozenset({reference} if reference else ())
        case nodes.Not(node=inner):
            return _proven(inner, not truth)
        case nodes.And(left=left, right=right) if truth:
            return _proven(left, True) | _proven(right, True)
        case nodes.Or(left=left, right=right) if not truth:
            return _proven(left, False) | _proven(right, False)
    return frozenset()
