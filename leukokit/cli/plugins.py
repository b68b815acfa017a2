"""``leukokit plugins``: what is installed, what it takes, and how to write and check one's own."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

import typer

from leukokit.cli import options

if TYPE_CHECKING:
    from rich.console import Console

    from leukokit.testing import Report
    from leukokit.weights import Card

app = typer.Typer(help="List, describe, create and check plugins.", no_args_is_help=True)


class PluginKind(StrEnum):
    """Kinds of plugins, as they are written on the command line."""

    DETECTOR = "detector"
    GRAPH_BUILDER = "graph-builder"
    CLASSIFIER = "classifier"
    WRITER = "writer"


@app.command("list")
def list_plugins(plugins: options.Plugins = None) -> None:
    """List all plugins. Reads metadata only; 'leukokit doctor' also imports them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from leukokit.registry import ALL

    options.load_plugins(plugins)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("kind", "name", "version", "package", "status"):
        table.add_column(column)
    for registry in ALL:
        for row in registry.rows():
            colour = "red" if row.error else "dim" if row.disabled else "default"
            status = f"[{colour}]{escape(row.status)}[/{colour}]"
            table.add_row(row.kind, escape(row.name), escape(row.version), escape(row.package), status)
    Console().print(table)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name of a plugin.")],
    plugins: options.Plugins = None,
) -> None:
    """Show a plugin's summary, its parameters with types, defaults and meaning, and its weights' card."""
    from rich.console import Console
    from rich.markup import escape

    from leukokit.errors import UnknownPluginError
    from leukokit.registry import ALL

    options.load_plugins(plugins)
    having = [registry for registry in ALL if any(row.name == name for row in registry.rows())]
    if not having:
        known = ", ".join(sorted({known for registry in ALL for known in registry.names()}))
        raise UnknownPluginError(f"no plugin is called '{name}'; there are: {known}")
    console = Console(highlight=False)
    for registry in having:
        cls: Any = registry.get(name)
        console.print(
            f"[bold]{registry.kind} {escape(name)}[/bold] {escape(cls.version)}: {escape(cls.summary)}"
        )
        _show_params(console, cls)
        _show_card(console, cls)


@app.command()
def new(
    kind: Annotated[PluginKind, typer.Argument(help="Kind of plugin.")],
    name: Annotated[str, typer.Argument(help="Name of the plugin, e.g. my-net.")],
    out: Annotated[Path, typer.Option(help="Folder to put it into.")] = Path(),
    single_file: Annotated[
        bool, typer.Option("--single-file", help="Write a single file, for --plugin.")
    ] = False,
) -> None:
    """Create a plugin: a package that installs and passes its tests, or a single file."""
    from leukokit.scaffold import create

    target = create(kind.value, name, out, single_file)
    typer.echo(f"{target}: made")
    if single_file:
        typer.echo(f"next: leukokit plugins check {target}")
    else:
        typer.echo(f"next: python -m pip install -e {target} && leukokit plugins check {name}")


@app.command()
def check(
    target: Annotated[str, typer.Argument(help="Name of a plugin, a .py file, or the folder of a package.")],
    kind: Annotated[
        PluginKind | None, typer.Option(help="Kind, if plugins of several kinds have this name.")
    ] = None,
    plugins: options.Plugins = None,
    time_limit: Annotated[float, typer.Option(min=0.1, help="Time limit of each check, in seconds.")] = 60.0,
    verbose: Annotated[bool, typer.Option("--verbose", help="Also show the checks that pass.")] = False,
) -> None:
    """Check that a plugin keeps its contract. Exits with code 1 if it does not."""
    from rich.console import Console

    from leukokit.testing import run_checks
    from leukokit.testing.targets import plugins_of

    options.load_plugins(plugins)
    console = Console(highlight=False)
    passed = True
    for found in plugins_of(target, None if kind is None else kind.value.replace("-", " ")):
        report = run_checks(found, seconds=time_limit)
        _show_report(console, report, verbose)
        passed = passed and report.passed
    if not passed:
        raise typer.Exit(1)


def _show_report(console: Console, report: Report, verbose: bool) -> None:
    from rich.markup import escape
    from rich.table import Table

    failed = [outcome for outcome in report.outcomes if not outcome.passed]
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("", "check", "seconds", "message"):
        table.add_column(column, justify="right" if column == "seconds" else "left", overflow="fold")
    told: set[str] = set()
    for outcome in report.outcomes if verbose else failed:
        mark = "[green]ok[/green]" if outcome.passed else "[red]failed[/red]"
        message = outcome.message.removeprefix(f"{report.plugin}: ").removeprefix(f"{outcome.name}: ")
        # One cause may fail every check.
        shown = "the same" if message in told else message
        told |= {message} - {""}
        table.add_row(mark, escape(outcome.name), f"{outcome.seconds:.2f}", escape(shown))
    console.print(
        f"[bold]{escape(report.plugin)}[/bold]: {len(report.outcomes) - len(failed)} of "
        f"{len(report.outcomes)} checks passed; {report.seconds:.1f} s{_memory_line(report)}",
        soft_wrap=True,
    )
    if table.row_count:
        console.print(table)


def _memory_line(report: Report) -> str:
    if report.peak_mb is None or report.grown_mb is None:
        return ""
    return f", peak memory {report.peak_mb:.0f} MB ({report.grown_mb:.0f} MB of it the checks')"


def _show_params(console: Console, plugin: Any) -> None:
    from rich.markup import escape
    from rich.table import Table

    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("parameter", "type", "default", "meaning"):
        table.add_column(column)
    for key, field in plugin.Params.model_fields.items():
        kind = getattr(field.annotation, "__name__", None) or str(field.annotation)
        kind = str(field.annotation) if "|" in str(field.annotation) else kind
        if get_origin(field.annotation) is Literal:
            kind = " | ".join(map(str, get_args(field.annotation)))
        default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
        table.add_row(key, escape(kind), escape(default), escape(field.description or ""))
    if table.row_count:
        console.print(table)


def _show_card(console: Console, plugin: Any) -> None:
    """The card beside the weights that the parameter ``weights`` names, where there is one."""
    from rich.markup import escape
    from rich.table import Column, Table

    from leukokit import weights
    from leukokit.errors import WeightsError

    field = plugin.Params.model_fields.get("weights")
    default = None if field is None else field.get_default(call_default_factory=True)
    if not isinstance(default, str | Path):
        return
    table = Table("", Column(overflow="fold"), box=None, show_header=False, pad_edge=False)
    try:
        path = weights.find(default)
        card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
    except WeightsError as error:
        table.add_row("weights", f"[red]{escape(str(error))}[/red]")
    else:
        for key, value in _told(card, path.stat().st_size):
            table.add_row(key, escape(value))
    console.print(table)


def _told(card: Card, size: int) -> Iterator[tuple[str, str]]:
    """The parts of a card that users need: all but its recipe and details."""
    yield "weights", f"{card.name} ({card.architecture}), {size / 1e6:.1f} MB"
    yield "sha256", card.sha256
    names = getattr(card, "classes", None) or getattr(card, "kinds", None)
    if names:
        yield "classes", ", ".join(names)
    if graph := getattr(card, "graph", None):
        yield "graph in training", " ".join(str(value) for value in graph.values())
    for key, entries in (("trained on", card.data), ("result", card.metrics)):
        for entry in entries:
            told = {word: value for word, value in entry.items() if not isinstance(value, dict | list)}
            yield key, "; ".join(f"{word}: {value}" for word, value in told.items())
    if card.command:
        yield "made by", card.command
    yield "use", card.use
