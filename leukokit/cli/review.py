"""``leukokit review``: a person finishes the count of a batch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leukokit.cli import options


def review(
    results: Annotated[Path, typer.Argument(help="Folder that 'leukokit batch' wrote.", show_default=False)],
    apply: Annotated[
        Path | None,
        typer.Option(
            help="Apply decisions from a CSV file with the columns image, cell, label, by.",
            show_default=False,
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="YAML list of further labels.", show_default=False),
    ] = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 for any free one.")] = 0,
    browser: Annotated[bool, typer.Option(help="Open the page in a browser.")] = True,
    quiet: options.Quiet = False,
) -> None:
    """Review the leukocytes of a batch on a local web page, or apply corrections from a file."""
    from leukokit.review.labels import read_labels
    from leukokit.review.serve import serve_review
    from leukokit.review.session import ReviewSession

    further = read_labels(labels) if labels else ()
    if apply is not None:
        from leukokit.review.corrections import apply_corrections, read_corrections

        session = ReviewSession(results, further)
        try:
            changed = apply_corrections(session.batch, session.log, read_corrections(apply))
            session.finish()
        finally:
            session.close()
        if not quiet:
            decisions = "1 decision" if changed == 1 else f"{changed} decisions"
            typer.echo(f"{decisions} stored; tables and report of {results} are written again")
        return
    serve_review(
        results,
        further,
        port,
        browser,
        lambda address: typer.echo(
            f"Review on {address}\nCtrl-C stops and writes the results. Decisions are stored at once."
        ),
    )
