"""The measurements of docs/development/study.md: which classifier, and does a cell's neighbourhood help?

    python benchmarks/study.py --config configs/study.yaml --out study
        [--jobs 2] [--device cpu] [--report docs/development/study.md]

Every fold leaves a laboratory out; the fold ``known`` leaves none. Of every fold and seed it trains the CNN,
the seed paper's network and, on the same CNN, the hybrid with its controls, and keeps what each says of the
test cells. What is there already is not done again, so that a stopped study resumes.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from study_controls import CONTROLS, adapted, averaged, end_to_end_answers
from study_folds import (
    ADAPTED,
    BUILDERS,
    CLASSES,
    END_TO_END,
    END_TO_END_CONTROLS,
    GROUP_NORM,
    KNOWN,
    MEAN,
    PAPER,
    Fold,
    Study,
    Tests,
    answers_of,
    slug,
    test_cells,
)
from study_group_norm import GroupNormClassifier
from study_larger import LARGER, LARGEST, larger
from study_pictures import PICTURES, pictured_cells
from study_shifts import SHIFTS, shifted_cells
from study_two_steps import second_step, trained_cnn, varied

from leukokit.config import PluginChoice, load_settings
from leukokit.training.cells import AnnotatedCell, builder_of, training_cells
from leukokit.training.classifier import ClassifierRecipe, plain_logits, train_classifier
from leukokit.training.hybrid import FieldGraphs, HybridRecipe, context_logits, embeddings_of
from leukokit.weights.files import load_weights

Answers = dict[str, npt.NDArray[np.float32]]
MakeGraphs = Callable[[list[AnnotatedCell]], FieldGraphs]


def main() -> None:
    """Run what is missing, then write the tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--config", type=Path, required=True, help="configs/study.yaml")
    parser.add_argument("--out", type=Path, required=True, help="folder of the answers")
    parser.add_argument("--jobs", type=int, default=2, help="processes, one thread each (default: 2)")
    parser.add_argument(
        "--device", default="cpu", help="cpu or cuda:N; CNNs are trained there (default: cpu)"
    )
    parser.add_argument("--report", type=Path, help="document whose tables are written anew")
    parser.add_argument("--only-report", action="store_true", help="run nothing")
    args = parser.parse_args()
    study = load_settings(Study, args.config)
    args.out.mkdir(parents=True, exist_ok=True)
    if not args.only_report:
        run(study, args.out, args.jobs, args.device)
    if args.report:
        from study_report import write_report

        write_report(study, args.out, args.report)


def run(study: Study, out: Path, jobs: int, device: str) -> None:
    """Everything that is missing, the first seeds first, in processes of one thread each."""
    shifted_cells(study.fields, study.detector, out / "shifted")
    labs = (*study.laboratories, KNOWN)
    folds = [Fold(study, out, lab, seed, device) for seed in study.seeds for lab in labs]
    means = folds[: len(labs)]
    first = means[:-1]
    tasks: list[Callable[[], str]] = [partial(run_fold, fold) for fold in folds]
    later: list[Callable[[], str]] = [partial(run_mean, fold) for fold in means]
    later += [partial(run_end_to_end, fold) for fold in folds]
    for name in END_TO_END_CONTROLS:
        later += [partial(run_control, fold, name) for fold in folds if fold.lab != KNOWN]
    known = [fold for fold in folds if fold.lab == KNOWN]
    two = [fold for fold in folds if fold.lab != KNOWN and fold.seed in study.seeds[:2]]
    later += [partial(run_larger, fold, name) for name in LARGER for fold in two]
    later += [partial(run_larger, fold, LARGEST) for fold in known]
    for name in PICTURES:
        pictured_cells(study.cells, name, out / "pictures")
    levers = (*study.levers, *PICTURES, GROUP_NORM)
    later += [partial(run_lever, fold, name) for name in levers for fold in first]
    with ProcessPoolExecutor(jobs, get_context("spawn"), initializer=one_thread) as pool:
        for batch in (tasks, later):
            for done in as_completed([pool.submit(task) for task in batch]):
                print(done.result(), flush=True)


def one_thread() -> None:
    """Keep a process to itself: two of one thread get further than one of two."""
    os.environ["OMP_NUM_THREADS"] = "1"
    import cv2
    import torch

    torch.set_num_threads(1)
    cv2.setNumThreads(1)


def run_fold(fold: Fold) -> str:
    """All methods and controls of a fold and seed; returns a line for people."""
    tests = test_cells(fold)
    for name in ("cnn", "altarawneh"):
        keep(fold, name, partial(answer, fold, fold.recipe(name), tests))
    if fold.lab != KNOWN:
        keep(fold, ADAPTED, partial(answer_adapted, fold, tests[fold.lab]))
    names = [f"hybrid {name}" for name in (*BUILDERS, *CONTROLS)]
    if not all(answers_of(fold, name).exists() for name in names):
        run_hybrids(fold, tests)
    return f"{fold.folder.name}: done"


def run_hybrids(fold: Fold, tests: Tests) -> None:
    """The hybrid with every graph builder, and its controls, on the fold's CNN."""
    recipe = fold.two_steps()
    cnn = trained_cnn(recipe)
    cells, _ = training_cells(recipe)
    seen = varied(cnn, cells, recipe)
    plain = {test: embeddings_of(cnn, chosen, recipe) for test, chosen in tests.items()}
    nearest = builder_of(recipe.graph)
    ways: dict[str, MakeGraphs] = {
        name: partial(FieldGraphs, builder=builder_of(PluginChoice(name=name))) for name in BUILDERS
    }
    ways |= {name: partial(make, builder=nearest) for name, make in CONTROLS.items()}

    def make(make_graphs: MakeGraphs, controlled: bool) -> Answers:
        network = second_step(recipe, make_graphs(cells), seen)
        return {
            test: context_logits(network, make_graphs(chosen), plain[test])
            for test, chosen in tests.items()
            if not (controlled and test in PAPER)
        }

    for name, make_graphs in ways.items():
        keep(fold, f"hybrid {name}", partial(make, make_graphs, name in CONTROLS))


def run_mean(fold: Fold) -> str:
    """The CNN whose weights are the mean of those of all seeds; kept with the first."""
    recipe = fold.recipe("cnn")

    def make() -> Answers:
        seeds = [replace(fold, seed=seed) for seed in fold.study.seeds]
        network = averaged([trained(one, recipe) for one in seeds])
        tests = test_cells(fold)
        return {test: plain_logits(network, cells, recipe) for test, cells in tests.items()}

    keep(fold, MEAN, make)
    return f"{fold.folder.name}: {MEAN}"


def run_lever(fold: Fold, name: str) -> str:
    """The CNN of a changed recipe, or on changed pictures, on the unseen laboratory."""
    if name in PICTURES:
        cells = pictured_cells(fold.study.cells, name, fold.out / "pictures")
        fold = replace(fold, study=fold.study.model_copy(update={"cells": cells}))
    recipe = fold.recipe("cnn", **fold.study.levers.get(name, {}))
    if name == GROUP_NORM:
        recipe.classifier = GroupNormClassifier.name
    recipe.name = f"lever-{slug(name)}"
    tests = {fold.lab: test_cells(fold)[fold.lab]}
    keep(fold, f"lever {name}", partial(answer, fold, recipe, tests))
    return f"{fold.folder.name}: {name}"


def run_end_to_end(fold: Fold) -> str:
    """The hybrid trained end to end, and its CNN."""
    _keep_both(fold, END_TO_END, fold.end_to_end())
    return f"{fold.folder.name}: {END_TO_END[0]}"


def run_larger(fold: Fold, name: str) -> str:
    """The hybrid trained end to end, and its CNN, of one of ``LARGER``."""
    _keep_both(fold, [f"{method}, {name}" for method in END_TO_END], larger(fold, name))
    return f"{fold.folder.name}: {END_TO_END[0]}, {name}"


def run_control(fold: Fold, control: str) -> str:
    """A control of the hybrid trained end to end."""
    name, make = f"{END_TO_END[0]} {control}", CONTROLS[control]

    def answers() -> Answers:
        return end_to_end_answers(fold.end_to_end(), make, _unshifted(fold), fold.device)[0]

    keep(fold, name, answers)
    return f"{fold.folder.name}: {name}"


def _keep_both(fold: Fold, names: Sequence[str], recipe: HybridRecipe) -> None:
    if not all(answers_of(fold, name).exists() for name in names):
        found = end_to_end_answers(recipe, FieldGraphs, _unshifted(fold), fold.device)
        for name, answers in zip(names, found, strict=True):
            keep(fold, name, partial(dict, answers))


def _unshifted(fold: Fold) -> Tests:
    return {test: cells for test, cells in test_cells(fold).items() if test not in SHIFTS}


def answer(fold: Fold, recipe: ClassifierRecipe, tests: Tests) -> Answers:
    """Logits of a network that uses crops."""
    network = trained(fold, recipe)
    return {test: plain_logits(network, cells, recipe) for test, cells in tests.items()}


def answer_adapted(fold: Fold, cells: list[AnnotatedCell]) -> Answers:
    """Logits of the CNN with statistics of the laboratory's own crops."""
    recipe = fold.recipe("cnn")
    return {fold.lab: plain_logits(adapted(trained(fold, recipe), cells, recipe), cells, recipe)}


def keep(fold: Fold, name: str, make: Callable[[], Answers]) -> None:
    """Write what ``make`` answers, whole or not at all; nothing where it is there already."""
    path = answers_of(fold, name)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        partial_path = path.with_suffix(".part.npz")
        np.savez(partial_path, **make())  # type: ignore[arg-type]  # no array is named as a parameter
        partial_path.replace(path)


def trained(fold: Fold, recipe: ClassifierRecipe) -> Any:
    """The network of a recipe, trained unless that was done before."""
    path = fold.folder / recipe.name / "best.safetensors"
    if not path.exists():
        train_classifier(recipe, path.parent, fold.device, report=_silent)
    network = recipe.plugin.new_network(len(CLASSES))
    load_weights(network, path)
    return network.eval()


def _silent(_: str) -> None:
    pass


if __name__ == "__main__":
    main()
