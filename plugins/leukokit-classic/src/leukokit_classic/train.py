"""``python -m leukokit_classic.train NAME --config FILE --out DIR``: make the weights of a plugin here.

``sift-cnn`` is trained by ``leukokit.training.classifier``, as with ``leukokit train classifier``.
``sift-words`` makes the visual words that it starts from, which see no label.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from leukokit.errors import ConfigError, LeukokitError

if TYPE_CHECKING:
    from leukokit.training.classifier import ClassifierRecipe

NAMES = ("svm-features", "sift-words", "sift-cnn")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    config: Annotated[Path, typer.Option(help="Recipe (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and weights.")] = Path("runs"),
    assign: Annotated[
        list[str] | None, typer.Option("--set", help="Over the recipe, e.g. penalty=3; repeatable.")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="sift-cnn: go on from the checkpoint.")] = False,
    device: Annotated[str, typer.Option(help="sift-cnn: auto, cpu, cuda or cuda:N.")] = "auto",
) -> None:
    """Train a classifier of this package; writes OUT/NAME-OF-THE-WEIGHTS/best.safetensors with its card."""
    from leukokit.config import load_settings

    command = shlex.join(["python", "-m", "leukokit_classic.train", *sys.argv[1:]])
    if name == "svm-features":
        from leukokit_classic.svm_training import SvmRecipe, train_svm

        machine = load_settings(SvmRecipe, config, assign or [])
        path = train_svm(machine, out / machine.name, typer.echo, command)
        typer.echo(f"wrote {path} and its card")
    elif name in NAMES:
        from leukokit.pipeline import resolve_device
        from leukokit.training.classifier import ClassifierRecipe, train_classifier

        recipe = load_settings(ClassifierRecipe, config, assign or [])
        if name == "sift-words":
            typer.echo(f"wrote {write_words(recipe, out)}")
            return
        if recipe.classifier != name:
            raise ConfigError(f"{config}: a recipe of classifier '{recipe.classifier}', not of '{name}'")
        path = train_classifier(
            recipe, out / recipe.name, resolve_device(device), resume, typer.echo, command
        )
        typer.echo(f"wrote {path} and its card")
    else:
        raise ConfigError(f"'{name}' cannot be trained here; there are: {', '.join(NAMES)}")


def write_words(recipe: ClassifierRecipe, out: Path) -> Path:
    """Fit the visual words of a recipe's training cells; returns the file, OUT/sift-words.safetensors.

    Raises:
        DataError: no cell is selected.
    """
    import numpy as np
    from leukokit.training.labelled import plain_views, training_cells

    from leukokit_classic.sift_words import WORDS_FILE, fit_words, save_words

    cells, _ = training_cells(recipe)
    views = plain_views(cells, recipe.crop_px, recipe.cover, recipe.nucleus).permute(0, 2, 3, 1).numpy()
    words = fit_words((np.ascontiguousarray(view) for view in views), recipe.seed)
    out.mkdir(parents=True, exist_ok=True)
    path = out / WORDS_FILE.name
    save_words(words, path)
    return path


def main() -> None:
    """Run the command; an error of leukokit's is one line and an exit code."""
    try:
        app(prog_name="python -m leukokit_classic.train")
    except LeukokitError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)


if __name__ == "__main__":
    main()
