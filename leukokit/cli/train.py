"""``leukokit train``: make weights from a recipe."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Train from a recipe (YAML).", no_args_is_help=True)


@app.callback()
def _group() -> None:
    pass


@app.command()
def detector(
    config: Annotated[Path, typer.Option(help="Recipe, e.g. configs/detector.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and weights.")] = Path("runs"),
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Over the recipe, e.g. steps=100; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a YOLO detector; writes OUT/NAME/best.safetensors with its card."""
    from rich.console import Console

    from leukokit.config import load_settings
    from leukokit.pipeline import resolve_device
    from leukokit.training.detector import DetectorRecipe, train_detector

    recipe = load_settings(DetectorRecipe, config, assign or [])
    console = Console(highlight=False)
    command = shlex.join(["leukokit", *(word for word in sys.argv[1:] if word != "--debug")])
    weights = train_detector(
        recipe, out / recipe.name, resolve_device(device), resume, console.print, command
    )
    console.print(f"wrote {weights} and its card", soft_wrap=True)


@app.command()
def classifier(
    config: Annotated[Path, typer.Option(help="Recipe, e.g. configs/cnn.yaml.")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and weights.")] = Path("runs"),
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Over the recipe, e.g. steps=100; repeatable.")
    ] = None,
    plugin: Annotated[list[Path] | None, typer.Option(help="Python file with plugins; repeatable.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a leukocyte classifier; writes OUT/NAME/best.safetensors with its card."""
    from rich.console import Console

    from leukokit.config import load_settings
    from leukokit.pipeline import resolve_device
    from leukokit.registry import load_file
    from leukokit.training.calibration import UNCALIBRATED
    from leukokit.training.classifier import train_classifier
    from leukokit.training.hybrid import HybridRecipe, train_hybrid
    from leukokit.training.recipes import AnyClassifierRecipe
    from leukokit.weights import ClassifierCard, read_card

    for path in plugin or []:
        load_file(path)
    recipe = load_settings(AnyClassifierRecipe, config, assign or []).root
    console = Console(highlight=False)
    command = shlex.join(["leukokit", *(word for word in sys.argv[1:] if word != "--debug")])
    place, where = out / recipe.name, resolve_device(device)
    if isinstance(recipe, HybridRecipe):
        weights = train_hybrid(recipe, place, where, resume, console.print, command)
    else:
        weights = train_classifier(recipe, place, where, resume, console.print, command)
    card = read_card(weights, ClassifierCard)
    if (card.temperature, card.review_threshold) == UNCALIBRATED:
        console.print("not calibrated: every leukocyte will be named")
    console.print(f"wrote {weights} and its card", soft_wrap=True)
