"""``leukokit compare``: any detectors, graph builders and classifiers on the same photographs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def compare(
    config: Annotated[Path, typer.Option(help="What to compare, on what: a YAML file.")],
    out: Annotated[Path, typer.Option(help="Folder for answers and tables; the same one goes on.")],
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Setting, e.g. fields=FILE; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
    restart: Annotated[bool, typer.Option("--restart", help="Forget the answers that --out holds.")] = False,
) -> None:
    """Compare methods: accuracy, tests against a baseline, time and size; stopped, it goes on."""
    from collections import Counter

    from rich.console import Console
    from rich.progress import Progress

    from leukokit._files import make_folder
    from leukokit.cli.evaluate import console_of
    from leukokit.config import load_settings
    from leukokit.evaluation.comparison.methods import Comparison, answer_all, fields_of, methods_of, steps_of
    from leukokit.evaluation.comparison.report import note_of, rows_of, table_of, write_all
    from leukokit.registry import load_file

    for path in plugin or []:
        load_file(path)
    comparison = load_settings(Comparison, config, assign or [])
    console = console_of()
    methods, tests = methods_of(comparison), fields_of(comparison)
    for name, chosen in tests.items():
        splits = Counter(one.split for one in chosen)
        told = ", ".join(f"{count} of {split or 'no split'}" for split, count in sorted(splits.items()))
        typer.echo(f"test {name}: {len(chosen)} fields, {told}")
    make_folder(out)
    failed = 0
    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("comparing", total=steps_of(methods, tests))

        def note(line: str) -> None:
            nonlocal failed
            if not line:
                bar.advance(task)
                return
            failed += 1
            typer.echo(f"error: {line}", err=True)

        answers, pipelines = answer_all(methods, tests, out, device, restart, note)
    rows = rows_of(methods, tests, answers, pipelines, comparison.baseline)
    for test in tests:
        console.print(table_of(rows, test))
        if note_of(rows, test):
            console.print(note_of(rows, test), markup=False)
        console.print()
    provenance = {method.name: pipelines[method.name].provenance for method in methods}
    for path in write_all(out, rows, comparison.baseline, provenance):
        typer.echo(f"wrote {path}")
    if failed:
        raise typer.Exit(3)
