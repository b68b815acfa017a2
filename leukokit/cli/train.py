"""``leukokit train``: make weights from a recipe."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from leukokit.cli import options

Runs = Annotated[Path, typer.Option("--out", help="Folder for checkpoints and weights.")]

app = typer.Typer(help="Train from a recipe (YAML).", no_args_is_help=True)


@app.callback()
def _train_group() -> None:
    pass


@app.command("detector")
def train_detector_command(
    config: options.Recipe,
    out: Runs = Path("runs"),
    settings: options.RecipeSettings = None,
    resume: options.Resume = False,
    device: options.Device = "auto",
) -> None:
    """Train a YOLO detector; writes OUT/NAME/best.safetensors with its card."""
    from leukokit.training import load_detector_recipe, train

    recipe = load_detector_recipe(config, settings or ())
    weights = train(recipe, out, device, resume, typer.echo, options.command_line())
    typer.echo(f"wrote {weights} and its card")


@app.command("classifier")
def train_classifier_command(
    config: options.Recipe,
    out: Runs = Path("runs"),
    settings: options.RecipeSettings = None,
    plugins: options.Plugins = None,
    resume: options.Resume = False,
    device: options.Device = "auto",
) -> None:
    """Train a leukocyte classifier; writes OUT/NAME/best.safetensors with its card."""
    from leukokit.training import load_classifier_recipe, train
    from leukokit.training.calibration import UNCALIBRATED
    from leukokit.weights import ClassifierCard, read_card

    options.load_plugins(plugins)
    recipe = load_classifier_recipe(config, settings or ())
    weights = train(recipe, out, device, resume, typer.echo, options.command_line())
    card = read_card(weights, ClassifierCard)
    if (card.temperature, card.review_threshold) == UNCALIBRATED:
        typer.echo("not calibrated: no leukocyte will be unclassified")
    typer.echo(f"wrote {weights} and its card")
