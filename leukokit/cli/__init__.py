"""The command line: one thin file a command. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import contextlib
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from leukokit import __version__
from leukokit.cli import (
    batch,
    compare,
    data,
    detect,
    doctor,
    evaluate,
    export,
    graph,
    options,
    plugins,
    review,
    supervision,
    train,
)
from leukokit.errors import ConfigError, LeukokitError, cause_of

app = typer.Typer(
    name="leukokit",
    help="Find, count and name the blood cells in images of stained smears. Research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command("detect")(detect.detect)
app.add_typer(batch.app, name="batch")
app.command("review")(review.review)
app.command("graph")(graph.graph)
app.add_typer(train.app, name="train")
app.add_typer(evaluate.app, name="evaluate")
app.command("compare")(compare.compare_command)
app.add_typer(plugins.app, name="plugins")
app.add_typer(data.app, name="data")
app.command("export")(export.export_command)
app.command("doctor")(doctor.doctor)


def _show_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"leukokit {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    # A separate callback: without a command, the function below is never reached.
    version: Annotated[
        bool,
        typer.Option("--version", help="Show the version and exit.", is_eager=True, callback=_show_version),
    ] = False,
    debug: options.Debug = False,
) -> None:
    pass


def program() -> None:
    """``main`` as a process, which ends with it."""
    # Threads of torch that spin for long while they wait take the cores from whatever else runs. To be set
    # before torch is imported.
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    for stream in (sys.stdout, sys.stderr):
        # A console that lacks a letter of a name gets its number, and no error.
        with contextlib.suppress(AttributeError, ValueError):
            stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    supervision.enter_program()
    code = 0
    try:
        main()
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    supervision.mark_finished()
    if _is_any_call_abandoned():
        # A thread that comes back from native code while the interpreter ends aborts the process.
        for stream in (sys.stdout, sys.stderr):
            with contextlib.suppress(OSError, ValueError):
                stream.flush()
        os._exit(code)
    sys.exit(code)


def _is_any_call_abandoned() -> bool:
    # Where nothing has imported the module, nothing was abandoned; importing it here would cost every start.
    guard = sys.modules.get("leukokit._guard")
    return guard is not None and guard.is_any_abandoned()


def main() -> None:
    """Run the command line; an error is one line and an exit code, a traceback only with ``--debug``."""
    # Accepted anywhere, because it is added when a command has just failed.
    debug = "--debug" in sys.argv
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    try:
        app(arguments, prog_name="leukokit")
    except SystemExit as ended:
        if ended.__context__ is not None and isinstance(ended.__context__.__cause__, KeyboardInterrupt):
            # Typer's own answer to Ctrl-C is silence.
            typer.echo("stopped", err=True)
            sys.exit(130)
        raise
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # Whoever read the output closed it. Shells report 141 for programs that this ends.
        with contextlib.suppress(OSError, ValueError), Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        sys.exit(141)
    except Exception as error:
        if debug:
            raise
        if isinstance(error, LeukokitError):
            typer.echo(f"error: {error}", err=True)
        else:
            cause = cause_of(error)
            typer.echo(f"error: unexpected {cause}; --debug shows where", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
