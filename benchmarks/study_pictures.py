"""The crops of benchmarks/study.py, their stain normalised once more by two published methods.

All crops are of standardised fields already; what is measured is what these add. Figures of a crop are
those of the leukocyte and its surroundings together, 2.4 times as wide as its box; what they are brought
to is their median over all crops.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.crops.cut import optical_density
from leukokit.datasets.detected import load_detected
from leukokit.images.pixels import RGBImage
from leukokit.images.standardize import WHITE

Figures = npt.NDArray[np.float32]
STAINED: Final = 0.15
"""Optical density from which a pixel counts as stained."""
PERCENTILE: Final = 1.0


def lab_figures(crop: RGBImage) -> Figures:
    """(2, 3): mean and standard deviation of L, a, b (Reinhard et al. 2001, doi:10.1109/38.946629)."""
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB).reshape(-1, 3).astype(np.float32)
    return np.stack([lab.mean(axis=0), lab.std(axis=0)])


def reinhard(crop: RGBImage, reference: Figures) -> RGBImage:
    """The crop with the reference's mean and deviation in L, a, b."""
    (mean, deviation), (wanted, spread) = lab_figures(crop), reference
    lab = cv2.cvtColor(crop, cv2.COLOR_RGB2LAB).astype(np.float32)
    moved = (lab - mean) / np.maximum(deviation, 1) * spread + wanted
    return np.asarray(cv2.cvtColor(np.clip(moved, 0, 255).astype(np.uint8), cv2.COLOR_LAB2RGB), np.uint8)


def stain_figures(crop: RGBImage) -> Figures:
    """(3, 3): two stain vectors and, in the last row, the 99th percentile of each one's concentration.

    Macenko et al. 2009, doi:10.1109/ISBI.2009.5193250.
    """
    density = optical_density(crop).reshape(-1, 3)
    stained = density[(density > STAINED).all(axis=1)]
    if len(stained) < 100:
        stained = density
    _, axes = np.linalg.eigh(np.cov(stained.T))
    plane = axes[:, 1:] * np.where(axes[:, 1:].sum(axis=0) < 0, -1, 1)
    on_plane = stained @ plane
    angles = np.arctan2(on_plane[:, 0], on_plane[:, 1])
    ends = [
        np.asarray(plane @ np.array([np.sin(a), np.cos(a)]), np.float64)
        for a in np.percentile(angles, [PERCENTILE, 100 - PERCENTILE])
    ]
    # The dye of nuclei takes more of the red light than the eosin of erythrocytes does.
    by_red = sorted(range(len(ends)), key=lambda number: -float(ends[number][0]))
    vectors = np.stack([ends[number] for number in by_red])
    strong = np.percentile(_concentrations(density, vectors), 99, axis=0)
    return np.vstack([vectors, [*strong, 0]]).astype(np.float32)


def macenko(crop: RGBImage, reference: Figures) -> RGBImage:
    """The crop in the reference's stain vectors and strengths."""
    own = stain_figures(crop)
    amounts = _concentrations(optical_density(crop).reshape(-1, 3), own[:2])
    factor = reference[2, :2] / np.maximum(own[2, :2], 0.05)
    density = (amounts * np.clip(factor, 0.2, 5)) @ reference[:2]
    return np.asarray(np.clip(WHITE * np.exp(-density), 0, 255).reshape(crop.shape), np.uint8)


def _concentrations(density: Figures, vectors: npt.NDArray[np.floating]) -> Figures:
    found, *_ = np.linalg.lstsq(vectors.T, density.T, rcond=None)
    return np.asarray(found.T, np.float32)


PICTURES: Final[dict[str, tuple[Callable[[RGBImage], Figures], Callable[[RGBImage, Figures], RGBImage]]]] = {
    "Reinhard normalisation, too": (lab_figures, reinhard),
    "Macenko normalisation, too": (stain_figures, macenko),
}


def pictured_cells(folders: Sequence[Path], name: str, out: Path) -> list[Path]:
    """Folders of the same annotated cells with other pictures; made once."""
    measure, change = PICTURES[name]
    made = [out / name / f"{number}-{folder.name}" for number, folder in enumerate(folders)]
    if all((folder / "fields.jsonl").exists() for folder in made):
        return made
    seen = [load_detected(folder) for folder in folders]
    every = [measure(np.asarray(crop)) for one in seen for crop in one.crops]
    reference = np.median(np.stack(every), axis=0)
    for source, one, target in zip(folders, seen, made, strict=True):
        target.mkdir(parents=True, exist_ok=True)
        np.save(target / "crops.npy", np.stack([change(np.asarray(crop), reference) for crop in one.crops]))
        shutil.copyfile(source / "appearance.npy", target / "appearance.npy")
        lines = []
        for line in (source / "fields.jsonl").read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            image = (source / row["image"]).resolve()
            lines.append(json.dumps(row | {"image": Path(os.path.relpath(image, target)).as_posix()}))
        (target / "fields.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made
