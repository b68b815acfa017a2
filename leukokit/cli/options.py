"""Options that several commands share, each written once, and the configuration that they add up to.

A command annotates its parameters with these types and gives them a default::

    def detect(images: options.Images, config: options.Config = None): ...
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Sequence

    from leukokit.config import PipelineConfig

# Input and output
Images = Annotated[
    list[str],
    typer.Argument(help="Image files, folders or patterns such as 'a/**/*.tif'.", show_default=False),
]
Image = Annotated[Path, typer.Argument(help="Image file.", show_default=False)]
ResultsFolder = Annotated[Path, typer.Option("--out", help="Folder for the results.", show_default=False)]
Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace files in --out that leukokit did not write.")
]
Restart = Annotated[bool, typer.Option("--restart", help="Discard what --out holds and start again.")]
Resume = Annotated[bool, typer.Option("--resume", help="Continue from the last checkpoint.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON on stdout, and nothing else.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print errors only.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

# The pipeline
DetectorName = Annotated[str | None, typer.Option("--detector", help="Detector plugin.", show_default="yolo")]
Graph = Annotated[str | None, typer.Option("--graph", help="Graph builder plugin.", show_default="knn")]
ClassifierName = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="Classifier plugin; 'none' leaves leukocytes without a class.",
        show_default="hybrid",
    ),
]
OptionalClassifier = Annotated[
    str | None,
    typer.Option("--classifier", help="Classifier plugin that labels the leukocytes.", show_default="none"),
]
Config = Annotated[Path | None, typer.Option("--config", help="Pipeline as a YAML file.", show_default=False)]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, over --config; repeatable. Examples: detector.confidence=0.3, graph.k=4, "
        "writers.png.longest_side=800.",
        show_default=False,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="Python file with plugins; repeatable.", show_default=False),
]
TrustPickle = Annotated[
    bool, typer.Option("--trust-pickle", help="Read .pt weights, which can run any code.")
]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda or cuda:N.")]
Devices = Annotated[
    str, typer.Option("--device", help="auto, cpu, cuda, cuda:N, or several GPUs: cuda:0,cuda:1.")
]

EngineName = Annotated[
    str | None,
    typer.Option(
        "--engine",
        help="What runs the networks: auto, onnxruntime, openvino, torch, tensorrt.",
        show_default="auto",
    ),
]

# Batches
GroupBy = Annotated[
    str | None,
    typer.Option(
        "--group-by",
        help="Count images together: 'folder', or a regular expression on the path, e.g. 'slide-(\\d+)'.",
        show_default=False,
    ),
]
TargetCount = Annotated[
    int | None,
    typer.Option(
        "--target",
        min=1,
        help="Leukocytes that each differential count needs; the summary says how many are missing.",
        show_default=False,
    ),
]
Bom = Annotated[
    bool, typer.Option("--bom", help="Start CSV files with a byte order mark, for Excel on Windows.")
]
Parquet = Annotated[
    bool, typer.Option("--parquet", help="Also write cells.parquet; needs pyarrow (the extra 'parquet').")
]

# Training and evaluation
Recipe = Annotated[
    Path, typer.Option("--config", help="Recipe as a YAML file, e.g. configs/cnn.yaml.", show_default=False)
]
RecipeSettings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="KEY=VALUE",
        help="One setting, over --config, e.g. steps=100; repeatable.",
        show_default=False,
    ),
]
Fields = Annotated[
    Path,
    typer.Option(
        "--fields", help="Prepared fields (.jsonl); see 'leukokit data prepare'.", show_default=False
    ),
]
Datasets = Annotated[
    list[str] | None,
    typer.Option("--dataset", help="Only these data sets; repeatable.", show_default=False),
]
Labs = Annotated[
    list[str] | None, typer.Option("--lab", help="Only these laboratories; repeatable.", show_default=False)
]
Splits = Annotated[
    list[str] | None, typer.Option("--split", help="Only these splits; repeatable.", show_default=False)
]
Slides = Annotated[
    list[str] | None, typer.Option("--slide", help="Only these slides; repeatable.", show_default=False)
]
Classes = Annotated[
    list[str] | None,
    typer.Option("--label", help="Only cells of these classes; repeatable.", show_default=False),
]
FiguresFile = Annotated[
    Path | None, typer.Option("--out", help="Write the figures to this JSON file.", show_default=False)
]
PictureFile = Annotated[
    Path | None,
    typer.Option("--picture", help="Draw the confusion matrix to this PNG file.", show_default=False),
]
CardFile = Annotated[
    Path | None,
    typer.Option(
        "--card", help="Record the figures in this weights' card, under --title.", show_default=False
    ),
]
Title = Annotated[str, typer.Option("--title", help="What was measured, for the card.", show_default=False)]


def pipeline_config(
    config: Path | None = None,
    settings: Sequence[str] | None = None,
    plugins: Sequence[Path] | None = None,
    *,
    detector: str | None = None,
    graph: str | None = None,
    classifier: str | None = None,
    engine: str | None = None,
    trust_pickle: bool = False,
) -> PipelineConfig:
    """Load the plugin files, then make the configuration: --config, then the plugin options, then --set.

    Raises:
        ConfigError: unreadable file, unknown key, or a value of the wrong type.
        PluginError: a plugin file is missing or fails.
    """
    from leukokit.config import load_config

    load_plugins(plugins)
    _refuse_bare_writers(settings or ())
    chosen = [f"engine={engine}"] if engine else []
    trusted = ["detector.trust_pickle=true"] if trust_pickle else []
    return load_config(config, [*chosen, *(settings or []), *trusted], detector, graph, classifier)


def _refuse_bare_writers(settings: Sequence[str]) -> None:
    """Refuse ``png.longest_side=800``, which is an obvious guess, and say what to write instead."""
    from leukokit.config import PipelineConfig
    from leukokit.errors import ConfigError
    from leukokit.registry import writers

    for setting in settings:
        name, dot, _ = setting.partition("=")[0].partition(".")
        if dot and name not in PipelineConfig.model_fields and name in writers.names():
            raise ConfigError(f"--set {setting}: to set up a writer, write writers.{setting}")


def load_plugins(plugins: Sequence[Path] | None) -> None:
    """Run the files of ``--plugin``, so that their plugins can be named.

    Raises:
        PluginError: a file is missing, fails, or registers no plugin.
    """
    from leukokit.registry import load_plugin_file

    for path in plugins or ():
        load_plugin_file(path)


def command_line() -> str:
    """Return this process's command as a shell would take it, for the record of how results were made."""
    import shlex
    import sys

    return shlex.join(["leukokit", *(word for word in sys.argv[1:] if word != "--debug")])


def review_threshold(settings: Sequence[str]) -> float | None:
    """Return the review threshold that ``--set`` gives; None where there is none.

    Raises:
        ConfigError: another setting, or no number.
    """
    from leukokit.errors import ConfigError

    threshold = None
    for setting in settings:
        key, _, value = setting.partition("=")
        try:
            threshold = float(value)
        except ValueError:
            threshold = float("nan")
        if key != "classifier.review_threshold" or threshold != threshold:
            raise ConfigError(
                f"--set {setting}: only classifier.review_threshold=NUMBER needs no image to be processed "
                "again; run the batch with another --out for other settings"
            )
    return threshold
