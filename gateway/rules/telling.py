"""A condition in words, part by part: what each looked at, what it was, and whether it holds."""

from __future__ import annotations

from typing import Final

from gateway.rules.match import Either, Every, Evidence, Negation, Node

_ANSWERS: Final = {True: "yes", False: "no", None: "unknown"}
NO_CONDITION: Final = "no condition: it is for every message"


def tell_each(node: Node, evidence: Evidence) -> str:
    """Return every part of a condition with its answer, also those that the answer of the whole does not hang on."""
    if isinstance(node, Every):
        return "; ".join(_tell(part, evidence) for part in node.parts) or NO_CONDITION
    return _tell(node, evidence)


def _tell(node: Node, evidence: Evidence) -> str:
    answer = _ANSWERS[node.holds(evidence)]
    match node:
        case Every(parts):
            return f"{answer}: all of ({'; '.join(_tell(part, evidence) for part in parts)})"
        case Either(parts):
            return f"{answer}: any of ({'; '.join(_tell(part, evidence) for part in parts)})"
        case Negation(part):
            return f"{answer}: not ({_tell(part, evidence)})"
    return f"{answer}: {node.tell(evidence)}"
