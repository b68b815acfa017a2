"""Print figures on the architecture of the package, and fail where ``--check`` finds it out of bounds.

A room is a folder of the package or a module at its top. The package's own ``__init__`` only names what is in
the rooms and is left out. Every import counts, also one inside a function or for type checkers only.

    python tools/architecture.py                    # of this checkout
    python tools/architecture.py --source ../other  # of another one
"""

from __future__ import annotations

import argparse
import ast
import itertools
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import grimp
import networkx as nx

PACKAGE = "leukokit"
MAX_FUNCTION_LINES = 60
CONVENTIONAL_NAMES = frozenset({"T", "_MODULES", "_log", "app"})
"""A type variable, the table of lazy names, the logger, the commands of a group."""


@dataclass(frozen=True, slots=True)
class Import:
    """One module of the package importing another."""

    importer: str
    imported: str


@dataclass(frozen=True, slots=True)
class Function:
    """A function or method and its length in lines, decorators left out."""

    name: str
    lines: int


@dataclass(frozen=True, slots=True)
class Figures:
    """What the command prints.

    Attributes:
        rooms: number of rooms.
        floors: number of layers the rooms form; rooms that import each other in a circle share one.
        upward: the fewest imports whose removal leaves no circle of rooms.
        mutual: pairs of rooms that import each other.
        longest: the longest function.
        options: number of definitions of a command-line option.
        repeated: name to the modules that define it, for names defined at the top of more than one module.
    """

    rooms: int
    floors: int
    upward: list[Import]
    mutual: list[tuple[str, str]]
    longest: Function
    options: int
    repeated: dict[str, list[str]]


def read_imports(source: Path) -> list[Import]:
    """Read every import between two modules of the package that lies in the folder ``source``."""
    sys.path.insert(0, str(source))
    try:
        graph = grimp.build_graph(PACKAGE, cache_dir=None)
    finally:
        sys.path.remove(str(source))
    return [
        Import(importer, imported)
        for importer in sorted(graph.modules - {PACKAGE})
        for imported in sorted(graph.find_modules_directly_imported_by(importer) - {PACKAGE})
    ]


def top_room(module: str) -> str:
    """Return the folder or module directly below the package that holds a module."""
    return module.split(".")[1]


def arrows_between_rooms(imports: list[Import]) -> dict[tuple[str, str], list[Import]]:
    """Group the imports that cross from one room into another by the two rooms."""
    arrows: dict[tuple[str, str], list[Import]] = defaultdict(list)
    for one in imports:
        rooms = (top_room(one.importer), top_room(one.imported))
        if rooms[0] != rooms[1]:
            arrows[rooms].append(one)
    return dict(arrows)


def fewest_upward(arrows: dict[tuple[str, str], list[Import]], rooms: frozenset[str]) -> list[Import]:
    """Find the smallest set of imports whose removal leaves no circle among some rooms.

    The rooms are put in order from the bottom, one at a time (dynamic programming over subsets); an import
    points up where it leads to a room that is placed later. Exponential in the number of rooms in a circle.
    """
    best: dict[frozenset[str], list[Import]] = {frozenset(): []}
    for size in range(1, len(rooms) + 1):
        for placed in map(frozenset, itertools.combinations(sorted(rooms), size)):
            options = []
            for last in sorted(placed):
                below = placed - {last}
                up = [one for room in sorted(below) for one in arrows.get((room, last), [])]
                options.append(best[below] + up)
            best[placed] = min(options, key=len)
    return best[rooms]


def find_functions(tree: ast.Module, module: str) -> Iterator[Function]:
    """Yield every function of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield Function(f"{module}.{node.name}", (node.end_lineno or node.lineno) - node.lineno + 1)


def defined_names(tree: ast.Module) -> set[str]:
    """Return the names that a module defines at its top, dunder names left out."""
    names: set[str] = set()
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return {name for name in names if not name.startswith("__")} - CONVENTIONAL_NAMES


def count_options(tree: ast.Module) -> int:
    """Count the calls of ``typer.Option``."""
    return sum(
        isinstance(node, ast.Call) and ast.unparse(node.func) in {"typer.Option", "Option"}
        for node in ast.walk(tree)
    )


def measure(source: Path) -> Figures:
    """Measure the package that lies in the folder ``source``."""
    arrows = arrows_between_rooms(read_imports(source))
    graph = nx.DiGraph(list(arrows))
    circles = [frozenset(rooms) for rooms in nx.strongly_connected_components(graph) if len(rooms) > 1]
    functions: list[Function] = []
    options = 0
    owners: dict[str, list[str]] = defaultdict(list)
    for path in sorted((source / PACKAGE).rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        module = ".".join(path.relative_to(source).with_suffix("").parts).removesuffix(".__init__")
        functions += find_functions(tree, module)
        options += count_options(tree)
        for name in defined_names(tree):
            owners[name].append(module)
    return Figures(
        rooms=graph.number_of_nodes(),
        floors=nx.dag_longest_path_length(nx.condensation(graph)) + 1,
        upward=[one for rooms in circles for one in fewest_upward(arrows, rooms)],
        mutual=sorted((a, b) for a, b in arrows if a < b and (b, a) in arrows),
        longest=max(functions, key=lambda function: function.lines),
        options=options,
        repeated={name: modules for name, modules in sorted(owners.items()) if len(modules) > 1},
    )


def print_figures(figures: Figures, *, details: bool) -> None:
    """Print the figures as a Markdown table and, on request, what is behind them."""
    rows = [
        ("rooms", f"{figures.rooms}"),
        ("floors", f"{figures.floors}"),
        ("imports that run up", f"{len(figures.upward)}"),
        ("pairs of rooms that import each other", f"{len(figures.mutual)}"),
        ("longest function, lines", f"{figures.longest.lines} (`{figures.longest.name}`)"),
        ("definitions of command-line options", f"{figures.options}"),
        ("module-level names defined in more than one module", f"{len(figures.repeated)}"),
    ]
    print("| figure | value |\n|---|---|")
    for name, value in rows:
        print(f"| {name} | {value} |")
    if details:
        for one in figures.upward:
            print(f"up: {one.importer} imports {one.imported}")
        for pair in figures.mutual:
            print(f"mutual: {pair[0]} and {pair[1]}")
        for name, modules in figures.repeated.items():
            print(f"repeated: {name} in {', '.join(modules)}")


def find_faults(figures: Figures) -> list[str]:
    """Return one sentence per bound that the figures break."""
    faults = [f"{one.importer} imports {one.imported}, which lies above it" for one in figures.upward]
    faults += [f"{a} and {b} import each other" for a, b in figures.mutual]
    if figures.longest.lines > MAX_FUNCTION_LINES:
        faults.append(f"{figures.longest.name} has {figures.longest.lines} lines, over {MAX_FUNCTION_LINES}")
    faults += [f"{name} is defined in {', '.join(modules)}" for name, modules in figures.repeated.items()]
    return faults


def main() -> int:
    """Print the figures; return 1 where ``--check`` finds a fault."""
    parser = argparse.ArgumentParser(description="Figures on the architecture of the package.")
    here = Path(__file__).parents[1]
    parser.add_argument("--source", type=Path, default=here, help="Folder of a checkout.")
    parser.add_argument("--details", action="store_true", help="Name what is behind the figures.")
    parser.add_argument("--check", action="store_true", help="Fail where a figure is out of bounds.")
    options = parser.parse_args()
    figures = measure(options.source.resolve())
    print_figures(figures, details=options.details)
    faults = find_faults(figures) if options.check else []
    for fault in faults:
        print(f"architecture: {fault}", file=sys.stderr)
    return int(bool(faults))


if __name__ == "__main__":
    raise SystemExit(main())
