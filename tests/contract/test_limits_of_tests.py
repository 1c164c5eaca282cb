"""Limits of time in tests: one that only guards against hanging is long, as a busy machine stands still for seconds."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = [*(path for path in ROOT.glob("tests/*") if path.name != "e2e"), ROOT / "testing"]  # e2e measures a real node
FILES = [path for folder in sorted(FOLDERS) for path in sorted(folder.rglob("*.py"))]
SHORTEST_S = 30.0
NAMES = {"timeout", "limit_s", "within_s"}
PLACES = {"timeout": 0, "timeout_at": 0, "wait_for": 1}  # of the limit among a call's arguments


def limits(call: ast.Call) -> Iterator[ast.expr]:
    """What a call waits for at most, as it is written."""
    called = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    place = PLACES.get(called)
    if place is not None and place < len(call.args):
        yield call.args[place]
    yield from (keyword.value for keyword in call.keywords if keyword.arg in NAMES)


def unexplained(source: str) -> list[int]:
    """Lines that name a short limit, as a number or as a constant of the file, and do not say why."""
    tree, lines = ast.parse(source), source.splitlines()
    known = {
        target.id: node.value.value
        for node in tree.body
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found = []
    for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call)):
        for limit in limits(call):
            value = known.get(limit.id) if isinstance(limit, ast.Name) else getattr(limit, "value", None)
            short = isinstance(value, int | float) and value < SHORTEST_S
            if short and "#" not in lines[limit.lineno - 1]:
                found.append(limit.lineno)
    return found


def test_short_limits_say_why() -> None:
    """Where the limit itself is what is tested, a comment on the line says so. All others are 30 s or more."""
    places = [f"{path.relative_to(ROOT)}:{line}" for path in FILES for line in unexplained(path.read_text())]
    assert places == [], "make the limit long (WITHIN_S), or say on its line why it is short"


@pytest.mark.parametrize(
    ("source", "lines"),
    [
        ("async with asyncio.timeout(5): pass", [1]),
        ("wait_for(it, 29.0)", [1]),
        ("LIMIT_S = 2\nask(timeout=LIMIT_S)", [2]),
        ("ask(limit_s=1)  # it is refused at once", []),
        ("wait_for(it, 60)\nask(timeout=None)\nask(timeout=elsewhere)", []),
    ],
)
def test_check_finds_them(source: str, lines: list[int]) -> None:
    """Numbers and constants alike."""
    tree = source if "async" not in source else f"async def a():\n  {source}"
    assert unexplained(tree) == [line + (tree != source) for line in lines]
