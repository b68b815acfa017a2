"""The size of an image is the same before and after it is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tifffile
from encoded import FIELD, SAMPLES, WIDE12
from PIL import Image
from test_decoding import FORMATS

from leukokit.smear import read_header, read_smear


@pytest.mark.parametrize(("name", "write", "expected", "tolerance", "words"), FORMATS)
def test_the_header_gives_the_size_that_is_read(
    name: str, write: object, expected: object, tolerance: object, words: object, tmp_path: Path
) -> None:
    assert callable(write)
    write(tmp_path / name)
    header, smear = read_header(tmp_path / name), read_smear(tmp_path / name)
    assert (header.width, header.height) == (smear.width, smear.height)
    assert header.peak_bytes >= smear.image.nbytes


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
def test_the_orientation_is_part_of_it(name: str, orientation: int, tmp_path: Path) -> None:
    path = tmp_path / name
    if name == "a.tif":
        tifffile.imwrite(path, FIELD, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        exif = Image.Exif()
        exif[274] = orientation
        Image.fromarray(FIELD).save(path, exif=exif)
    header, smear = read_header(path), read_smear(path)
    turned = orientation >= 5
    assert (header.width, header.height) == (smear.width, smear.height)
    assert (header.width, header.height) == (FIELD.shape[:2] if turned else FIELD.shape[1::-1])


@pytest.mark.parametrize("kind", SAMPLES)
def test_the_header_of_a_file_that_is_none(kind: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(SAMPLES[kind][:20])
    with pytest.raises(Exception, match="a: "):
        read_header(tmp_path / "a")
    (tmp_path / "empty").touch()
    with pytest.raises(Exception, match="empty"):
        read_header(tmp_path / "empty")


def test_wide_samples_take_more_memory(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "narrow.tif", FIELD, photometric="rgb")
    tifffile.imwrite(tmp_path / "wide.tif", WIDE12.astype(np.float64), photometric="rgb")
    narrow, wide = (read_header(tmp_path / f"{name}.tif").peak_bytes for name in ("narrow", "wide"))
    assert wide > 2 * narrow
