"""Samples wider than 8 bits: one bright thing does not make the field dark, and odd types come out right."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import imagecodecs
import numpy as np
import numpy.typing as npt
import pytest
import tifffile
from PIL import Image

from leukokit.smear import Smear, read_smear
from leukokit.synthetic.smear import draw_smear

FIELD = draw_smear(5, 480, 360, 2, 40.0).image
WIDE = FIELD.astype(np.uint16)
DEPTHS: dict[int, npt.NDArray[np.uint16]] = {
    10: ((WIDE << 2) | (WIDE >> 6)).astype(np.uint16),
    12: ((WIDE << 4) | (WIDE >> 4)).astype(np.uint16),
    14: ((WIDE << 6) | (WIDE >> 2)).astype(np.uint16),
}


def with_hot_pixel(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    changed = samples.copy()
    changed[100, 200] = 65535
    return changed


def with_scale_bar(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    mask = np.zeros(samples.shape[:2], np.uint8)
    mask[320:328, 320:440] = 1
    cv2.putText(mask, "10 um", (340, 315), cv2.FONT_HERSHEY_SIMPLEX, 0.7, 1, 2, cv2.LINE_AA)
    changed = samples.copy()
    changed[mask > 0] = 65535
    return changed


def with_label(samples: npt.NDArray[Any]) -> npt.NDArray[Any]:
    changed = samples.copy()
    changed[300:340, 300:480] = 65535
    return changed


def read(path: Path) -> Smear:
    return read_smear(path)


def error_of(smear: Smear, away_from: npt.NDArray[np.bool_] | None = None) -> float:
    apart = np.abs(smear.image.astype(int) - FIELD).max(axis=2)
    return float(apart.mean() if away_from is None else apart[~away_from].mean())


@pytest.mark.parametrize("bits", DEPTHS)
@pytest.mark.parametrize("change", [with_hot_pixel, with_scale_bar, with_label])
@pytest.mark.parametrize("kind", ["tif", "png"])
def test_one_bright_thing_does_not_make_the_field_dark(
    bits: int, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]], kind: str, tmp_path: Path
) -> None:
    samples = change(DEPTHS[bits])
    path = tmp_path / f"a.{kind}"
    if kind == "tif":
        tifffile.imwrite(path, samples, photometric="rgb")
    else:
        path.write_bytes(imagecodecs.png_encode(samples))
    smear = read(path)
    assert error_of(smear, (samples != DEPTHS[bits]).any(axis=2)) < 0.6
    assert f"scaled by 255/{2**bits - 1}" in smear.notes[0] and "set to white" in smear.notes[0]


def test_brighter_parts_are_mentioned_only_where_there_are_any(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", DEPTHS[12], photometric="rgb")
    assert read(tmp_path / "a.tif").notes == ("16-bit values scaled by 255/4095",)


def test_white_that_the_tags_state_is_used(tmp_path: Path) -> None:
    dim = DEPTHS[12] // 5
    tag = (281, "H", 3, (4095, 4095, 4095), True)
    tifffile.imwrite(tmp_path / "a.tif", dim, photometric="rgb", extratags=[tag])
    smear = read(tmp_path / "a.tif")
    assert "255/4095" in smear.notes[0] and "tags" in smear.notes[0]
    assert smear.image.max() < 60
    tag = (281, "H", 3, (255, 255, 255), True)
    tifffile.imwrite(tmp_path / "b.tif", DEPTHS[12], photometric="rgb", extratags=[tag])
    assert "255/4095" in read(tmp_path / "b.tif").notes[0], "a tag that the pixels contradict"


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        ((((WIDE << 8) | WIDE).astype(np.int32) - 32768).astype(np.int16), "-32768..32767"),
        (DEPTHS[12].astype(np.int16) - 2048, "-2048..2047"),
        ((FIELD.astype(np.int16) - 128).astype(np.int8), "-128..127"),
        (DEPTHS[12].astype(np.int16), "255/4095"),
        (DEPTHS[12].astype(np.int32), "255/4095"),
        (DEPTHS[12].astype(np.uint32), "255/4095"),
        (FIELD.astype(np.int16), "255/255"),
    ],
    ids=["int16 offset", "int16 minus 2048", "int8", "int16", "int32", "uint32", "int16 of 8 bits"],
)
def test_signed_and_wide_integers(samples: npt.NDArray[Any], words: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    smear = read(tmp_path / "a.tif")
    assert error_of(smear) < 0.6
    assert words in smear.notes[0]


def floats(**changes: float) -> npt.NDArray[np.float32]:
    values = (FIELD / 255).astype(np.float32)
    for number, value in enumerate(changes.values()):
        values[100, 200 + number] = value
    return values


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (floats(), "scaled by 255"),
        (floats(outlier=300.0), "set to white"),
        (floats(infinite=np.inf), "1 pixels without a finite value"),
        (floats(missing=np.nan, other=np.nan), "2 pixels without a finite value"),
        (floats(negative=-1e-4), "scaled by 255"),
        (floats(negative=-50.0), "scaled by 255"),
        (floats(outlier=4e9, negative=-50.0), "set to white"),
    ],
)
def test_outliers_among_floating_point_values(samples: npt.NDArray[Any], words: str, tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", samples, photometric="rgb")
    smear = read(tmp_path / "a.tif")
    changed = np.zeros(FIELD.shape[:2], bool)
    changed[100, 200:204] = True
    assert error_of(smear, changed) < 0.6
    assert words in smear.notes[0]


@pytest.mark.parametrize("value", [0, 3])
@pytest.mark.parametrize("kind", ["png", "tif", "webp", "deep.png"])
def test_an_empty_alpha_channel_is_ignored(value: int, kind: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.{kind}"
    pixels = np.dstack([FIELD, np.full(FIELD.shape[:2], value, np.uint8)])
    pixels[:2, :, 3] = 255
    if kind == "tif":
        tifffile.imwrite(path, pixels, photometric="rgb", extrasamples=["unassalpha"])
    elif kind == "deep.png":
        path.write_bytes(imagecodecs.png_encode(pixels.astype(np.uint16) * 257))
    else:
        options: dict[str, Any] = {"lossless": True, "exact": True} if kind == "webp" else {}
        Image.fromarray(pixels).save(path, **options)
    smear = read(path)
    assert np.array_equal(smear.image, FIELD)
    assert "the alpha channel is empty: ignored" in smear.notes


def test_a_transparent_surround_is_still_white(tmp_path: Path) -> None:
    alpha = np.zeros(FIELD.shape[:2], np.uint8)
    alpha[100:200, 100:300] = 255
    Image.fromarray(np.dstack([FIELD, alpha])).save(tmp_path / "a.png")
    smear = read(tmp_path / "a.png")
    assert (smear.image[:100] == 255).all() and smear.notes == ("transparent parts laid on white",)
