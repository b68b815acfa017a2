"""Draw a believable field of view of a stained peripheral blood smear (Wright-Giemsa, 100x oil) from a seed.

Cells are drawn in optical density, which adds where they overlap, and turned to light at the end
(Beer-Lambert). The lamp is uneven, the optics blur, the camera counts photons and sharpens a little.
The truth is known to the pixel. It is an example and a test piece, not a substitute for real smears.
"""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from leukokit.errors import DataError
from leukokit.synthetic.cells import DrawnCell
from leukokit.synthetic.layout import Layout, draw_erythrocytes, draw_leukocytes, draw_platelets
from leukokit.synthetic.shapes import Plane, band_noise

LAMP = np.array([246.0, 233.0, 219.0], dtype=np.float32)
"""Grey value of the empty background (red, green, blue) in the middle of the field."""
VISIBLE = 0.25
"""A cell of which less than this fraction lies in the field gets no box."""
SMALLEST_DIAMETER = 10.0
"""Erythrocyte diameter in pixels below which nothing of a cell's inside could be drawn."""


@dataclass(frozen=True, slots=True)
class SyntheticSmear:
    """A drawn field of view and its truth.

    Attributes:
        image: RGB uint8 (H, W, 3).
        boxes: float32 (N, 4) xyxy, pixels, tight around each cell's outline and clipped to the field.
        kinds: N of ``taxonomy.KINDS``.
        labels: N leukocyte classes, empty for the other kinds.
        erythrocyte_diameter_px: usual side of an erythrocyte's box, pixels.
        seed: what the field was drawn from.
    """

    image: npt.NDArray[np.uint8]
    boxes: npt.NDArray[np.float32]
    kinds: tuple[str, ...]
    labels: tuple[str, ...]
    erythrocyte_diameter_px: float
    seed: int


def draw_smear(
    seed: int = 0,
    width: int = 1600,
    height: int = 1200,
    leukocytes: int = 10,
    erythrocyte_diameter_px: float = 70.0,
) -> SyntheticSmear:
    """Draw a stained field of view; the same arguments give the same picture.

    Args:
        seed: any integer from 0.
        width: of the field, pixels.
        height: of the field, pixels.
        leukocytes: how many; from five on, all five classes are among them.
        erythrocyte_diameter_px: usual erythrocyte diameter, which sets the scale of everything; from 10.

    Raises:
        DataError: the leukocytes do not fit, or an argument is out of range.

    The densities of overlapping cells add (Beer-Lambert); how stains are separated on real slides is in
    Ruifrok & Johnston (2001, Anal. Quant. Cytol. Histol. 23:291-299).

    Examples:
        >>> drawn = draw_smear(seed=1, width=400, height=300, leukocytes=2, erythrocyte_diameter_px=40)
        >>> drawn.image.shape, drawn.kinds.count("leukocyte")
        ((300, 400, 3), 2)
    """
    _check_arguments(seed, width, height, leukocytes, erythrocyte_diameter_px)
    rng = np.random.default_rng(seed)
    layout = Layout(width, height, erythrocyte_diameter_px)
    cells = draw_leukocytes(rng, layout, leukocytes)
    cells += draw_erythrocytes(rng, layout)
    cells += draw_platelets(rng, layout)
    density = _bare_slide(rng, width, height, erythrocyte_diameter_px)
    for cell in cells:
        cell.stamp(density)
    image = _photograph(rng, density, erythrocyte_diameter_px)
    boxes, kinds, labels = _truth(cells, width, height)
    return SyntheticSmear(image, boxes, kinds, labels, erythrocyte_diameter_px, seed)


def save_smear(smear: SyntheticSmear, path: Path) -> Path:
    """Write the picture as PNG to ``path`` and its truth beside it as JSON; both whole or not at all.

    Returns:
        The JSON's path: that of the picture with the suffix ``.json``.

    Raises:
        DataError: ``path`` does not end in .png, or cannot be written.
    """
    from PIL import Image

    if path.suffix.lower() != ".png":
        raise DataError(f"{path}: a drawn smear is saved as PNG; give a name that ends in .png")
    truth_path = path.with_suffix(".json")
    for target in (path, truth_path):
        # Replacing is the last step, too late to find that one of the two cannot be replaced.
        if target.is_dir():
            raise DataError(f"{target}: cannot write the drawn smear (it is a folder); choose another name")
    picture = io.BytesIO()
    Image.fromarray(smear.image).save(picture, format="PNG", optimize=True)
    contents = {truth_path: _truth_json(smear, path.name).encode(), path: picture.getvalue()}
    partials = {target: target.with_name(target.name + ".part") for target in contents}
    try:
        for target, content in contents.items():
            partials[target].write_bytes(content)
        for target, partial in partials.items():
            partial.replace(target)
    except OSError as error:
        for partial in partials.values():
            # Tidying up must not hide what went wrong.
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
        raise DataError(
            f"{path}: cannot write the drawn smear ({error.strerror}); choose another place"
        ) from error
    return truth_path


def _check_arguments(seed: int, width: int, height: int, leukocytes: int, diameter: float) -> None:
    if seed < 0 or leukocytes < 0:
        raise DataError(f"drawn smear: seed {seed} and {leukocytes} leukocytes must not be negative")
    if not SMALLEST_DIAMETER <= diameter <= min(width, height) / 2:
        raise DataError(
            f"drawn smear: an erythrocyte diameter of {diameter:g} px does not suit {width} x {height} px; "
            f"give at least {SMALLEST_DIAMETER:g} px and at most half the shorter side"
        )


def _truth(
    cells: list[DrawnCell], width: int, height: int
) -> tuple[npt.NDArray[np.float32], tuple[str, ...], tuple[str, ...]]:
    boxed = [(cell, *cell.box(width, height)) for cell in cells]
    kept = [(cell, box) for cell, box, visible in boxed if visible >= VISIBLE]
    boxes = np.array([box for _, box in kept], dtype=np.float32).reshape(-1, 4)
    return boxes, tuple(cell.kind for cell, _ in kept), tuple(cell.label for cell, _ in kept)


def _truth_json(smear: SyntheticSmear, name: str) -> str:
    height, width = smear.image.shape[:2]
    cells = [
        {"kind": kind, "label": label, "box": [float(side) for side in box]}
        for kind, label, box in zip(smear.kinds, smear.labels, smear.boxes, strict=True)
    ]
    head = {
        "image": name,
        "width": width,
        "height": height,
        "seed": smear.seed,
        "erythrocyte_diameter_px": smear.erythrocyte_diameter_px,
    }
    # One cell per line: legible, and a changed cell is one changed line.
    lines = ",\n".join("  " + json.dumps(cell) for cell in cells)
    return json.dumps(head)[:-1] + ', "cells": [\n' + lines + "\n]}\n"


def _bare_slide(rng: np.random.Generator, width: int, height: int, unit: float) -> Plane:
    """Optical density of the slide without cells: a thin film of plasma, dust out of focus, stain specks."""
    film = 0.006 * band_noise(rng, (height // 4 + 1, width // 4 + 1), 0.3 * unit / 4)
    film += 0.004 * band_noise(rng, film.shape, 1.5 * unit / 4)
    fine_film = np.asarray(cv2.resize(film, (width, height), interpolation=cv2.INTER_CUBIC), np.float32)
    density = (fine_film[..., None] + 0.012) * np.array([0.8, 1.2, 0.7], dtype=np.float32)
    share = width * height / unit**2 / (1600 * 1200 / 70**2)
    for count, size, tint, strength in (
        (rng.poisson(9 * share), (0.04, 0.10), (0.9, 1.0, 1.1), 0.10),
        (rng.poisson(26 * share), (0.010, 0.022), (0.8, 1.1, 0.6), 0.30),
    ):
        for _ in range(int(count)):
            spread = rng.uniform(*size) * unit
            place = rng.uniform(0, (width, height))
            _add_speck(density, place, spread, strength * rng.uniform(0.3, 1.0) * np.array(tint))
    return np.asarray(np.maximum(density, 0), dtype=np.float32)


def _add_speck(
    density: Plane, place: npt.NDArray[np.float64], spread: float, colour: npt.NDArray[np.float64]
) -> None:
    height, width = density.shape[:2]
    reach = int(np.ceil(3 * spread)) + 1
    left, top = max(int(place[0]) - reach, 0), max(int(place[1]) - reach, 0)
    right, bottom = min(int(place[0]) + reach + 1, width), min(int(place[1]) + reach + 1, height)
    across = np.exp(-0.5 * ((np.arange(left, right) - place[0]) / spread) ** 2)
    down = np.exp(-0.5 * ((np.arange(top, bottom) - place[1]) / spread) ** 2)
    density[top:bottom, left:right] += (down[:, None] * across)[..., None] * colour


def _photograph(rng: np.random.Generator, density: Plane, unit: float) -> npt.NDArray[np.uint8]:
    """Light through the slide as a camera on an ordinary microscope records it: RGB uint8 (H, W, 3)."""
    height, width = density.shape[:2]
    light = np.exp(-density) * _lamp(rng, width, height)
    scale = max(unit / 70, 0.35)
    # An achromat focuses blue a little worse than green.
    for channel, blur in enumerate((0.80, 0.70, 1.0)):
        light[..., channel] = cv2.GaussianBlur(light[..., channel], (0, 0), blur * scale)
    # The camera's own sharpening, the cause of the faint bright line around cells.
    light += 0.30 * (light - cv2.GaussianBlur(light, (0, 0), 2.2 * scale))
    noise = rng.standard_normal(light.shape, dtype=np.float32)
    # The colour filter's interpolation and compression leave photon noise softer than white.
    grain = np.asarray(cv2.GaussianBlur(noise, (0, 0), 0.55), dtype=np.float32)
    grain /= grain.std()
    light += grain * np.sqrt(np.maximum(light, 0) * 0.0065 + 0.35)
    return np.clip(np.rint(light), 0, 255).astype(np.uint8)


def _lamp(rng: np.random.Generator, width: int, height: int) -> Plane:
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j].astype(np.float32)
    off_axis = rng.uniform(-0.15, 0.15, 2)
    radius = (x - off_axis[0]) ** 2 + (y - off_axis[1]) ** 2
    vignette = 1 - rng.uniform(0.05, 0.075) * radius
    turn = rng.uniform(0, 2 * np.pi)
    slope = (np.cos(turn) * x + np.sin(turn) * y).astype(np.float32)
    tint = np.array([0.022, 0.028, 0.042], dtype=np.float32)
    lamp: Plane = (vignette[..., None] * (1 + slope[..., None] * tint) * LAMP).astype(np.float32)
    return lamp
