"""The layers of pyproject.toml name every module: what nobody has put anywhere, nothing holds in its place."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_every_module_has_its_layer() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    named = {name for layer in contracts[0]["layers"] for name in re.findall(r"[\w.]+", layer)}
    modules = [path.relative_to(ROOT / "gateway").with_suffix("") for path in (ROOT / "gateway").rglob("*.py")]
    unplaced = [
        module.as_posix()
        for module in modules
        if module.name != "__init__"
        and not named & {".".join(module.parts[:depth]) for depth in range(1, len(module.parts) + 1)}
    ]
    assert unplaced == []
