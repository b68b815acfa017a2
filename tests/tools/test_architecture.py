"""tools/architecture.py: what it counts."""

from __future__ import annotations

import ast

import pytest

pytest.importorskip("grimp", reason="grimp comes with the extra 'lint'")

from architecture import (
    Import,
    arrows_between_rooms,
    count_options,
    defined_names,
    fewest_upward,
    find_functions,
)


def test_one_import_against_many_is_the_one_that_runs_up() -> None:
    imports = [
        Import("leukokit.data.a", "leukokit.training.x"),
        Import("leukokit.training.x", "leukokit.data.a"),
        Import("leukokit.training.y", "leukokit.data.b"),
        Import("leukokit.data.a", "leukokit.data.b"),
    ]
    arrows = arrows_between_rooms(imports)
    assert set(arrows) == {("data", "training"), ("training", "data")}
    assert fewest_upward(arrows, frozenset({"data", "training"})) == [imports[0]]


def test_a_circle_of_three_rooms_is_opened_at_its_weakest_place() -> None:
    imports = [
        Import("leukokit.a.x", "leukokit.b"),
        Import("leukokit.a.y", "leukokit.b"),
        Import("leukokit.b", "leukokit.c.x"),
        Import("leukokit.b", "leukokit.c.y"),
        Import("leukokit.c.x", "leukokit.a.x"),
    ]
    assert fewest_upward(arrows_between_rooms(imports), frozenset("abc")) == [imports[4]]


def test_names_functions_and_options_are_found() -> None:
    tree = ast.parse(
        "A = 1\nB: int = 2\n__all__ = ['A']\nOut = Annotated[str, typer.Option('--out')]\n"
        "def f():\n    g = 1\n    def inner():\n        pass\nclass C:\n    D = 3\n"
    )
    assert defined_names(tree) == {"A", "B", "Out", "f", "C"}
    assert count_options(tree) == 1
    assert {(one.name, one.lines) for one in find_functions(tree, "m")} == {("m.f", 4), ("m.inner", 2)}
