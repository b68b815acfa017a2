"""``leukokit batch``: many images to tables and a report, resumable."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from leukokit.cli import options
from leukokit.cli.batch_progress import end, print_summary, report, stoppable


class _Batch(TyperGroup):
    """``leukokit batch FOLDER`` is short for ``leukokit batch run FOLDER``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put ``run`` before arguments that name no command."""
        if args and args[0] not in (*self.commands, "--help"):
            args = ["run", *args]
        return list(super().parse_args(ctx, args))


app = typer.Typer(
    cls=_Batch,
    no_args_is_help=True,
    help="Count the cells of many images into tables and a report; stop it at any moment, and resume. "
    "'leukokit batch FOLDER' is short for 'leukokit batch run FOLDER'; write a folder that is called "
    "like a command as ./run.",
)
Save = Annotated[
    str, typer.Option("--save", help="Writers of a file per image, comma-separated: png, json, yolo, ...")
]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Threads that read images, per process.")]
Processes = Annotated[
    int | None,
    typer.Option(
        "--processes",
        min=0,
        help="Worker processes; 0 for none.",
        show_default="on GPUs one per core, at most 16; for plugins of others at least 1; else 0",
    ),
]
ShardOption = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="K/N: do part K of N of the images; 'leukokit batch merge' joins them.",
        show_default=False,
    ),
]
Log = Annotated[
    Path | None, typer.Option("--log", help="File to add a line to for every image.", show_default=False)
]


@app.command()
def run(
    images: options.Images,
    out: options.ResultsFolder,
    restart: options.Restart = False,
    overwrite: options.Overwrite = False,
    group_by: options.GroupBy = None,
    target: options.TargetCount = None,
    save: Save = "",
    detector: options.DetectorName = None,
    graph: options.Graph = None,
    classifier: options.ClassifierName = None,
    config: options.Config = None,
    settings: options.Settings = None,
    plugins: options.Plugins = None,
    engine: options.EngineName = None,
    device: options.Devices = "auto",
    workers: Workers = 2,
    processes: Processes = None,
    shard: ShardOption = None,
    parquet: options.Parquet = False,
    bom: options.Bom = False,
    log: Log = None,
    trust_pickle: options.TrustPickle = False,
    quiet: options.Quiet = False,
) -> None:
    """Count the cells of many images; the same command resumes a batch that was stopped."""
    from leukokit.batch import BatchOptions, run_batch

    chosen = options.pipeline_config(
        config,
        settings,
        plugins,
        detector=detector,
        graph=graph,
        classifier=classifier,
        engine=engine,
        trust_pickle=trust_pickle,
    )
    how = BatchOptions(
        save, shard, device, workers, processes, restart, overwrite, command=options.command_line()
    )
    with stoppable(log, quiet) as progress:
        summary = run_batch(
            images,
            out,
            chosen,
            how,
            group_by=group_by,
            target=target,
            parquet=parquet,
            bom=bom,
            on_progress=progress.show,
        )
    print_summary(summary, out, target, quiet)
    end(summary)


@app.command()
def merge(
    shards: Annotated[list[Path], typer.Argument(help="Folders that 'leukokit batch --shard' wrote to.")],
    out: options.ResultsFolder,
    restart: options.Restart = False,
    group_by: options.GroupBy = None,
    target: options.TargetCount = None,
    parquet: options.Parquet = False,
    bom: options.Bom = False,
    quiet: options.Quiet = False,
) -> None:
    """Join the shards of a batch: tables, report and files as one run over all images writes them."""
    from leukokit.batch import merge_shards

    summary = merge_shards(
        shards,
        out,
        group_by=group_by,
        target=target,
        parquet=parquet,
        bom=bom,
        restart=restart,
        command=options.command_line(),
    )
    for problem in summary.problems:
        report(problem)
    print_summary(summary, out, target, quiet)
    end(summary)


@app.command()
def status(
    out: Annotated[Path, typer.Argument(help="Folder that 'leukokit batch' writes to.", show_default=False)],
) -> None:
    """Show how far the batch in a folder is; it may still be running."""
    from leukokit._text import printable
    from leukokit.batch import batch_status

    found = batch_status(out)
    part = f" of shard {found.shard}" if found.shard else ""
    typer.echo(
        f"{found.done} of {found.images} images{part} done, {found.failed} failed, {found.waiting} waiting"
    )
    for name, cause in found.failures:
        typer.echo(f"failed: {printable(name.as_posix())}: {cause}")


@app.command("recount")
def recount_command(
    results: Annotated[Path, typer.Argument(help="Folder of a batch.", show_default=False)],
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE",
            help="The one setting that needs no image: classifier.review_threshold=0.5.",
            show_default=False,
        ),
    ] = None,
    group_by: options.GroupBy = None,
    target: options.TargetCount = None,
    parquet: options.Parquet = False,
    bom: options.Bom = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the tables and the report again in seconds, with other groups or another review threshold."""
    from leukokit.batch import recount as count_again

    summary = count_again(
        results,
        review_threshold=options.review_threshold(settings or []),
        group_by=group_by,
        target=target,
        parquet=parquet,
        bom=bom,
        command=options.command_line(),
    )
    print_summary(summary, results, target, quiet)
    end(summary)
