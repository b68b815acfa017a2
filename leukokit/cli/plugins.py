"""``leukokit plugins``: what is installed, what it takes, and how to write and check one's own."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from leukokit.cli import options

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
    from leukokit.cli.plugins_output import print_rows
    from leukokit.registry import ALL

    options.load_plugins(plugins)
    print_rows(row for registry in ALL for row in registry.rows())


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name of a plugin.")],
    plugins: options.Plugins = None,
) -> None:
    """Show a plugin's summary, its parameters with types, defaults and meaning, and its weights' card."""
    from leukokit.cli.plugins_output import print_plugin
    from leukokit.errors import UnknownPluginError
    from leukokit.registry import ALL

    options.load_plugins(plugins)
    having = [registry for registry in ALL if any(row.name == name for row in registry.rows())]
    if not having:
        known = ", ".join(sorted({known for registry in ALL for known in registry.names()}))
        raise UnknownPluginError(f"no plugin is called '{name}'; there are: {known}")
    for registry in having:
        print_plugin(registry.kind, registry.get(name))


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
    from leukokit.cli.plugins_output import print_report
    from leukokit.testing import run_checks
    from leukokit.testing.targets import plugins_of

    options.load_plugins(plugins)
    passed = True
    for found in plugins_of(target, None if kind is None else kind.value.replace("-", " ")):
        report = run_checks(found, seconds=time_limit)
        print_report(report, verbose)
        passed = passed and report.passed
    if not passed:
        raise typer.Exit(1)
