"""``python -m leukokit_zoo.train NAME --config FILE --out DIR``: make the weights of a plugin here.

Of its detectors: the classifiers are trained by ``leukokit train classifier``.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer
from leukokit import LeukokitError
from leukokit.errors import ConfigError

NAMES = ("detr", "yolo-cnn")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    config: Annotated[Path, typer.Option(help="Recipe (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and weights.")] = Path("runs"),
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", help="Over --config, e.g. steps=100; repeatable."),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a network of this package; writes OUT/NAME-OF-THE-WEIGHTS/best.safetensors with its card."""
    from leukokit.config import load_settings
    from leukokit.pipeline import resolve_device

    where, assignments = resolve_device(device), assign or []
    command = shlex.join(["python", "-m", "leukokit_zoo.train", *sys.argv[1:]])
    if name == "yolo-cnn":
        from leukokit_zoo.judge_training import JudgeRecipe, train_judge

        judge = load_settings(JudgeRecipe, config, assignments)
        path = train_judge(judge, out / judge.name, where, resume, typer.echo, command)
    elif name == "detr":
        from leukokit.training import DetectorRecipe

        from leukokit_zoo.detr_training import train_detr

        recipe = load_settings(DetectorRecipe, config, assignments)
        path = train_detr(recipe, out / recipe.name, resume, typer.echo, command)
    else:
        raise ConfigError(f"'{name}' cannot be trained here; there are: {', '.join(NAMES)}")
    typer.echo(f"wrote {path} and its card")


def main() -> None:
    """Run the command; an error of leukokit's is one line and an exit code."""
    try:
        app(prog_name="python -m leukokit_zoo.train")
    except LeukokitError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
