"""TIFF files that hold one colour photograph in several ways, or more than one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile

from leukokit.smear import read_header, read_smear
from leukokit.synthetic.smear import draw_smear

FIELD = draw_smear(4, 400, 300, 2, 40.0).image
PLANES = np.ascontiguousarray(FIELD.transpose(2, 0, 1))
BLURRED = cv2.GaussianBlur(FIELD, (0, 0), 8)
TAKEN = "three grey planes taken for red, green and blue"


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("a.tif", {"imagej": True, "metadata": {"axes": "CYX", "mode": "composite"}}),
        ("a.tif", {"imagej": True, "truncate": True, "metadata": {"axes": "CYX", "mode": "composite"}}),
        (
            "a.ome.tif",
            {
                "photometric": "minisblack",
                "metadata": {"axes": "CYX", "Channel": {"Name": ["Red", "Green", "Blue"]}},
            },
        ),
        ("a.tif", {"photometric": "minisblack"}),
        ("a.tif", {"photometric": "minisblack", "truncate": True}),
        ("a.tif", {"photometric": "minisblack", "compression": "zlib"}),
        ("a.tif", {"photometric": "minisblack", "metadata": None}),
    ],
    ids=["imagej", "imagej, one page", "ome", "shaped", "shaped, one page", "packed", "pages"],
)
@pytest.mark.parametrize("deep", [False, True])
def test_three_grey_planes_are_red_green_and_blue(
    name: str, options: dict[str, Any], deep: bool, tmp_path: Path
) -> None:
    planes = PLANES.astype(np.uint16) * 257 if deep else PLANES
    tifffile.imwrite(tmp_path / name, planes, **options)
    smear = read_smear(tmp_path / name)
    assert np.array_equal(smear.image, FIELD)
    assert TAKEN in smear.notes
    header = read_header(tmp_path / name)
    assert (header.width, header.height) == (400, 300)


def test_planes_within_a_page(tmp_path: Path) -> None:
    for photometric in ("rgb", "minisblack"):
        tifffile.imwrite(tmp_path / "a.tif", PLANES, photometric=photometric, planarconfig="separate")
        assert np.array_equal(read_smear(tmp_path / "a.tif").image, FIELD)


def test_four_unnamed_channels_are_colours_and_one_more(tmp_path: Path) -> None:
    rgba = np.dstack([FIELD, np.full(FIELD.shape[:2], 255, np.uint8)])
    tifffile.imwrite(tmp_path / "a.tif", rgba, photometric="minisblack", planarconfig="contig")
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, FIELD)
    assert "the first three of four unnamed channels taken for red, green and blue" in smear.notes


@pytest.mark.parametrize("one_page", [False, True])
@pytest.mark.parametrize(
    ("axes", "words"), [("ZYXS", "plane 1 of 3 read"), ("TYXS", "time point 1 of 3 read")]
)
def test_of_a_stack_it_is_said_what_was_read(axes: str, words: str, one_page: bool, tmp_path: Path) -> None:
    stack = np.stack([FIELD, BLURRED, BLURRED])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, truncate=one_page, metadata={"axes": axes})
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, FIELD)
    assert words in smear.notes


def test_colour_planes_of_a_stack(tmp_path: Path) -> None:
    stack = np.stack([PLANES, 255 - PLANES])
    tifffile.imwrite(tmp_path / "a.tif", stack, imagej=True, metadata={"axes": "ZCYX", "mode": "composite"})
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, FIELD)
    assert smear.notes == ("plane 1 of 2 read", TAKEN)


def test_three_grey_pages_of_different_fields_are_not_mixed(tmp_path: Path) -> None:
    fields = np.stack([draw_smear(seed, 400, 300, 2, 40.0).image[..., 1] for seed in (1, 2, 3)])
    tifffile.imwrite(tmp_path / "a.tif", fields, photometric="minisblack")
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, np.dstack([fields[0]] * 3))
    assert smear.notes == ("page 1 of 3 read",)


def test_pages_of_different_sizes_are_noted(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(FIELD, photometric="rgb", metadata=None)
        tiff.write(FIELD[:200, :100], photometric="rgb", metadata=None)
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, FIELD)
    assert any("1 of 2" in note for note in smear.notes)


@pytest.mark.parametrize("place", ["page", "subifd"])
def test_a_thumbnail_before_the_image_is_passed_over(place: str, tmp_path: Path) -> None:
    small = np.ascontiguousarray(FIELD[::4, ::4])
    options: dict[str, Any] = {"metadata": None} if place == "page" else {"subifds": 1}
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(small, photometric="rgb", subfiletype=1, **options)
        tiff.write(FIELD, photometric="rgb", subfiletype=0, metadata=None)
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, FIELD)
    header = read_header(tmp_path / "a.tif")
    assert (header.width, header.height) == (400, 300)


def test_reduced_copies_after_the_image_need_no_note(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(FIELD, photometric="rgb", subifds=2, tile=(64, 64))
        for step in (2, 4):
            reduced = np.ascontiguousarray(FIELD[::step, ::step])
            tiff.write(reduced, subfiletype=1, photometric="rgb", tile=(64, 64))
    smear = read_smear(tmp_path / "a.tif")
    assert np.array_equal(smear.image, FIELD) and smear.notes == ()


def test_planes_that_are_cut_off_are_an_error(tmp_path: Path) -> None:
    from encoded import refusal

    tifffile.imwrite(tmp_path / "a.tif", PLANES, photometric="minisblack", truncate=True)
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(data[:-1000])
    assert "truncated" in refusal(tmp_path / "a.tif")
