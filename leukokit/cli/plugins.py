"""``leukokit plugins``: what is installed, and what it takes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

app = typer.Typer(help="List the plugins and show what they take.", no_args_is_help=True)


@app.command("list")
def list_plugins(
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
) -> None:
    """List all plugins. Reads metadata only; 'leukokit doctor' also imports them."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from leukokit.registry import ALL, load_file

    for path in plugin or []:
        load_file(path)
    table = Table(box=None, header_style="bold", pad_edge=False)
    for column in ("kind", "name", "version", "package", "status"):
        table.add_column(column)
    for registry in ALL:
        for row in registry.rows():
            status = f"[red]{escape(row.error)}[/red]" if row.error else "ok"
            table.add_row(row.kind, row.name, row.version, row.package, status)
    Console().print(table)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="Name of a plugin.")],
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
) -> None:
    """Show a plugin's summary and its parameters with types, defaults and meaning."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from leukokit.errors import PluginError
    from leukokit.registry import ALL, load_file

    for path in plugin or []:
        load_file(path)
    having = [registry for registry in ALL if name in registry.names()]
    if not having:
        known = ", ".join(sorted({known for registry in ALL for known in registry.names()}))
        raise PluginError(f"no plugin is called '{name}'; there are: {known}")
    console = Console(highlight=False)
    for registry in having:
        cls: Any = registry.get(name)
        console.print(
            f"[bold]{registry.kind} {escape(name)}[/bold] {escape(cls.version)}: {escape(cls.summary)}"
        )
        table = Table(box=None, header_style="bold", pad_edge=False)
        for column in ("parameter", "type", "default", "meaning"):
            table.add_column(column)
        for key, field in cls.Params.model_fields.items():
            kind = getattr(field.annotation, "__name__", None) or str(field.annotation)
            kind = str(field.annotation) if "|" in str(field.annotation) else kind
            default = "required" if field.is_required() else str(field.get_default(call_default_factory=True))
            table.add_row(key, escape(kind), escape(default), escape(field.description or ""))
        if cls.Params.model_fields:
            console.print(table)
