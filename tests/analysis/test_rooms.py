"""Imports between the rooms of the analysis go one way."""

import ast
from pathlib import Path

import pytest

import analysis

ROOT = Path(analysis.__file__).parent
# Each room and those that it may import; none knows a room that comes after it.
ALLOWED = {
    "data": set(),
    "theory": set(),
    "statistics": {"data", "theory"},
    "power": {"data", "theory", "statistics"},
    "figures": {"data", "theory", "statistics"},
    "report": {"data", "theory", "statistics", "figures"},
}


def imported_rooms(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
        names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        for name in names:
            if name.startswith("analysis."):
                yield name.split(".")[1]


def test_every_module_is_in_a_room():
    rooms = {path.relative_to(ROOT).parts[0] for path in ROOT.rglob("*.py")}
    assert rooms == {*ALLOWED, "__init__.py"}
    assert [path.name for path in ROOT.glob("*.py")] == ["__init__.py"]


@pytest.mark.parametrize("room", ALLOWED)
def test_a_room_knows_only_those_before_it(room):
    seen = {other for path in (ROOT / room).rglob("*.py") for other in imported_rooms(path)}
    assert seen - {room} <= ALLOWED[room]
    assert seen or room in ("data", "theory")
