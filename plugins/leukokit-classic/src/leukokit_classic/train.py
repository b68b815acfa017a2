"""``python -m leukokit_classic.train NAME --config FILE --out DIR``: the SVM of ``svm-features``, and words.

``sift-words`` are the visual words that ``sift-cnn`` starts from, which see no label; the network itself is
trained by ``leukokit train classifier``.
"""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from leukokit import LeukokitError
from leukokit.errors import ConfigError

if TYPE_CHECKING:
    from leukokit.training import ClassifierRecipe

NAMES = ("svm-features", "sift-words")

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)


@app.command()
def train(
    name: Annotated[str, typer.Argument(help=f"One of {', '.join(NAMES)}.")],
    config: Annotated[Path, typer.Option(help="Recipe (YAML).")],
    out: Annotated[Path, typer.Option(help="Folder for checkpoints and weights.")] = Path("runs"),
    assign: Annotated[
        list[str] | None,
        typer.Option("--set", help="Over --config, e.g. penalty=3; repeatable."),
    ] = None,
) -> None:
    """Write OUT/svm-features/best.safetensors with its card, or OUT/sift-words.safetensors."""
    from leukokit.config import load_settings

    if name == "svm-features":
        from leukokit_classic.svm_training import SvmRecipe, train_svm

        command = shlex.join(["python", "-m", "leukokit_classic.train", *sys.argv[1:]])
        machine = load_settings(SvmRecipe, config, assign or [])
        path = train_svm(machine, out / machine.name, typer.echo, command)
        typer.echo(f"wrote {path} and its card")
    elif name == "sift-words":
        from leukokit.training import ClassifierRecipe

        path = write_words(load_settings(ClassifierRecipe, config, assign or []), out)
        typer.echo(f"wrote {path}")
    else:
        raise ConfigError(f"'{name}' cannot be trained here; there are: {', '.join(NAMES)}")


def write_words(recipe: ClassifierRecipe, out: Path) -> Path:
    """Fit the visual words of a recipe's training cells; returns the file, OUT/sift-words.safetensors.

    Raises:
        DataError: no cell is selected.
    """
    import numpy as np
    from leukokit.training import plain_views, training_cells

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
