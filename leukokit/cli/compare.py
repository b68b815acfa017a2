"""``leukokit compare``: any detectors, graph builders and classifiers on the same photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leukokit.cli import options
from leukokit.cli.progress import progress_bar


def compare_command(
    config: Annotated[Path, typer.Option(help="What to compare, on what: a YAML file.", show_default=False)],
    out: Annotated[
        Path, typer.Option(help="Folder for results and tables; a stopped run resumes.", show_default=False)
    ],
    settings: options.RecipeSettings = None,
    plugins: options.Plugins = None,
    device: options.Device = "auto",
    restart: options.Restart = False,
) -> None:
    """Compare methods: accuracy, tests against a baseline, time and size. A stopped comparison resumes."""
    from collections import Counter

    from leukokit.cli.consoles import make_console
    from leukokit.cli.tables import comparison_table, print_tables
    from leukokit.config import load_settings
    from leukokit.evaluation import comparison
    from leukokit.evaluation.comparison.methods import Comparison, fields_of
    from leukokit.evaluation.comparison.report import comparison_note

    options.load_plugins(plugins)
    wanted = load_settings(Comparison, config, settings or ())
    tests = fields_of(wanted)
    for name, chosen in tests.items():
        splits = Counter(one.split for one in chosen)
        counts = ", ".join(f"{count} of {split or 'no split'}" for split, count in sorted(splits.items()))
        typer.echo(f"test {name}: {len(chosen)} fields, {counts}")
    with progress_bar("comparing") as progress:
        report = comparison.compare(wanted, out, device, restart, progress)
    console = make_console()
    for test in tests:
        print_tables(console, comparison_table(report.rows, test), comparison_note(report.rows, test))
        console.print()
    for path in report.files:
        typer.echo(f"wrote {path}")
    for failure in report.failures:
        typer.echo(f"error: {failure}", err=True)
    if report.failures:
        raise typer.Exit(3)
