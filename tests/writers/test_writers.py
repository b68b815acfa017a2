"""Every format read back by another reader; hostile names, empty fields and full disks included."""

from __future__ import annotations

import contextlib
import csv
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit._files import write_atomically
from leukokit._text import FORMULA_STARTS
from leukokit.cells import Cells
from leukokit.datasets import prepare, read_fields
from leukokit.datasets.recipe import SetRecipe
from leukokit.errors import ConfigError, OutputError
from leukokit.images import find_images
from leukokit.registry import writers
from leukokit.results import SmearResult
from leukokit.smear import Smear, read_smear
from leukokit.synthetic import draw_smear, save_smear
from leukokit.taxonomy import (
    COLOURS,
    ERYTHROCYTE,
    KINDS,
    LEUKOCYTE,
    LEUKOCYTE_CLASSES,
    PLATELET,
    UNCLASSIFIED,
)
from leukokit.writers.base import Writer
from leukokit.writers.png import PngParams, draw

FORMATS = ("json", "csv", "coco", "yolo", "geojson", "graphml", "png")
HOSTILE = [
    '=cmd|" /C calc"!A0',
    "+1+1",
    "-2",
    "@SUM(A1)",
    'say "it", twice',
    "it's; a, list",
    "two\nlines",
    "carriage\rreturn",
    "<b>bold</b>",
    "[red]markup[/red]",
    "мазок 血液 🩸",
    "%s {0} \\u0041",
    "not text \udcff",
]

CELLS = Cells(
    np.array(
        [
            [-3.25, 20.5, 90.125, 110.75],
            [10, 10, 50, 50],
            [60, 12, 104, 56],
            [120, 20, 162, 62],
            [140.333, 100.667, 152.5, 115.25],
        ]
    ),
    np.array([LEUKOCYTE, ERYTHROCYTE, ERYTHROCYTE, ERYTHROCYTE, PLATELET]),
    np.array([0.98765, 0.5, 0.25, 1.0, 0.0]),
)


def made(cells: Cells = CELLS, stem: str = "smear", height: int = 150, width: int = 200) -> SmearResult:
    image = np.full((height, width, 3), (240, 228, 232), np.uint8)
    return SmearResult(
        Smear.from_array(image, Path(f"{stem}.png")), cells, Path(stem), {"device": "cpu"}, 0.5
    )


def saved(name: str, out: Path, *results: SmearResult) -> list[Path]:
    with writers.get(name)(out) as writer:
        for result in results:
            writer.write(result)
    assert len(set(writer.files)) == len(writer.files)
    assert set(writer.files) == {path for path in out.rglob("*") if path.is_file()}
    return sorted(path.relative_to(out) for path in writer.files)


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream, strict=True))


def no_constant(name: str) -> None:
    raise AssertionError(f"{name} is not JSON")


def document_of(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"), parse_constant=no_constant)


# --- formats ---------------------------------------------------------------------------------------


def test_json_is_the_document_of_the_result(tmp_path: Path) -> None:
    assert saved("json", tmp_path, made()) == [Path("smear.json")]
    assert document_of(tmp_path / "smear.json") == made().to_json()


def test_csv_has_a_row_a_cell_and_a_row_an_image(tmp_path: Path) -> None:
    saved("csv", tmp_path, made(), made(Cells.empty(), "blank"))
    cells, counts = rows_of(tmp_path / "cells.csv"), rows_of(tmp_path / "counts.csv")
    assert [row["image"] for row in cells] == ["smear.png"] * 5
    assert [row["id"] for row in cells] == ["0", "1", "2", "3", "4"]
    assert [row["kind"] for row in cells] == [KINDS[kind] for kind in CELLS.kinds]
    boxes = [[float(row[side]) for side in ("x1", "y1", "x2", "y2")] for row in cells]
    np.testing.assert_allclose(boxes, CELLS.boxes, atol=0.0051)
    np.testing.assert_allclose([float(row["score"]) for row in cells], CELLS.scores, atol=5.1e-5)
    assert {row["label"] + row["probability"] + row["review"] for row in cells} == {""}
    unknown = dict.fromkeys((*LEUKOCYTE_CLASSES, UNCLASSIFIED), "")
    assert counts == [
        unknown
        | {
            "image": "smear.png",
            "leukocyte": "1",
            "erythrocyte": "3",
            "platelet": "1",
            "erythrocyte_diameter_px": "42.0",
            "width": "200",
            "height": "150",
            "seconds": "0.5",
            "notes": "",
        },
        unknown
        | {
            "image": "blank.png",
            "leukocyte": "0",
            "erythrocyte": "0",
            "platelet": "0",
            "erythrocyte_diameter_px": "",
            "width": "200",
            "height": "150",
            "seconds": "0.5",
            "notes": "",
        },
    ]


def test_coco_is_read_by_a_coco_reader(tmp_path: Path) -> None:
    faster_coco_eval = pytest.importorskip("faster_coco_eval", reason="the extra 'test' brings a COCO reader")
    assert saved("coco", tmp_path, made(), made(Cells.empty(), "blank"), made(stem="b/smear")) == [
        Path("coco.json")
    ]
    coco = faster_coco_eval.COCO(str(tmp_path / "coco.json"))
    names = {image["file_name"]: image["id"] for image in coco.loadImgs(coco.getImgIds())}
    assert list(names) == ["smear.png", "blank.png", str(Path("b/smear.png"))]
    assert {row["id"]: row["name"] for row in coco.loadCats(coco.getCatIds())} == dict(enumerate(KINDS, 1))
    assert coco.getAnnIds(imgIds=[names["blank.png"]]) == []
    rows = coco.loadAnns(coco.getAnnIds(imgIds=[names["smear.png"]]))
    boxes = np.array([row["bbox"] for row in rows])
    np.testing.assert_allclose(boxes[:, :2], CELLS.boxes[:, :2], atol=0.0051)
    np.testing.assert_allclose(boxes[:, :2] + boxes[:, 2:], CELLS.boxes[:, 2:], atol=0.0102)
    assert [KINDS[row["category_id"] - 1] for row in rows] == [KINDS[kind] for kind in CELLS.kinds]
    for row in rows:
        assert row["area"] == pytest.approx(row["bbox"][2] * row["bbox"][3], abs=0.01)
        assert row["iscrowd"] == 0
    every = document_of(tmp_path / "coco.json")["annotations"]
    assert [row["id"] for row in every] == list(range(1, 11))


@st.composite
def placed_cells(draw: st.DrawFn) -> tuple[Cells, int, int]:
    width, height = draw(st.integers(1, 6000)), draw(st.integers(1, 6000))
    part = st.floats(0, 1, width=32)
    rows = draw(st.lists(st.tuples(part, part, part, part, st.sampled_from(range(3))), max_size=5))
    xs = np.sort(np.array([row[0:2] for row in rows]).reshape(-1, 2), axis=1) * width
    ys = np.sort(np.array([row[2:4] for row in rows]).reshape(-1, 2), axis=1) * height
    boxes = np.stack([xs[:, 0], ys[:, 0], xs[:, 1], ys[:, 1]], axis=1)
    return (
        Cells(boxes, np.array([row[4] for row in rows], int), np.ones(len(rows), np.float32)),
        width,
        height,
    )


@settings(deadline=None, max_examples=40)
@given(placed_cells())
def test_yolo_lines_give_the_boxes_back(
    tmp_path_factory: pytest.TempPathFactory, placed: tuple[Cells, int, int]
) -> None:
    cells, width, height = placed
    out = tmp_path_factory.mktemp("yolo")
    smear = Smear(np.broadcast_to(np.uint8(0), (1, 1, 3)).copy(), None, "")
    object.__setattr__(smear, "image", np.broadcast_to(np.uint8(0), (height, width, 3)))
    assert saved("yolo", out, SmearResult(smear, cells, Path("a"))) == [Path("a.txt"), Path("classes.txt")]
    fields = [line.split(" ") for line in (out / "a.txt").read_text().splitlines()]
    assert [int(field[0]) for field in fields] == cells.kinds.tolist()
    values = np.array([[float(value) for value in field[1:]] for field in fields]).reshape(-1, 4)
    assert ((values >= 0) & (values <= 1)).all()
    sizes = np.array([width, height])
    centres, halves = values[:, :2] * sizes, values[:, 2:] * sizes / 2
    found = np.concatenate([centres - halves, centres + halves], axis=1)
    # Six decimals of the image's side, and the float32 of a coordinate.
    np.testing.assert_allclose(found, cells.boxes, atol=1e-3 * max(1.0, max(width, height) / 1000))
    assert (out / "classes.txt").read_text().splitlines() == list(KINDS)


def test_an_empty_field_has_an_empty_label_file(tmp_path: Path) -> None:
    saved("yolo", tmp_path, made(Cells.empty()))
    assert (tmp_path / "smear.txt").read_bytes() == b""


def test_geojson_is_closed_rings_of_detections(tmp_path: Path) -> None:
    assert saved("geojson", tmp_path, made()) == [Path("smear.geojson")]
    collection = document_of(tmp_path / "smear.geojson")
    assert collection["type"] == "FeatureCollection"
    assert len(collection["features"]) == len(CELLS)
    for feature, kind, score, box in zip(
        collection["features"], CELLS.kinds, CELLS.scores, CELLS.boxes, strict=True
    ):
        assert feature["type"] == "Feature"
        (ring,) = feature["geometry"]["coordinates"]
        assert feature["geometry"]["type"] == "Polygon"
        assert len(ring) == 5
        assert ring[0] == ring[-1]
        corners = np.array(ring)
        np.testing.assert_allclose([*corners.min(axis=0), *corners.max(axis=0)], box, atol=0.0051)
        # RFC 7946: an outer ring runs counterclockwise (y up); the shoelace sum is then positive.
        x, y = corners.T
        assert (x[:-1] * y[1:] - x[1:] * y[:-1]).sum() > 0
        properties = feature["properties"]
        assert properties["objectType"] == "detection"
        name = KINDS[kind]
        assert properties["classification"]["name"] == name
        assert "#{:02X}{:02X}{:02X}".format(*properties["classification"]["color"]) == COLOURS[name]
        assert properties["measurements"]["score"] == pytest.approx(score, abs=5.1e-5)
        assert properties["measurements"]["width px"] == pytest.approx(box[2] - box[0], abs=0.02)
    identities = [uuid.UUID(feature["id"]) for feature in collection["features"]]
    assert len(set(identities)) == len(identities)


def test_geojson_of_an_empty_field(tmp_path: Path) -> None:
    saved("geojson", tmp_path, made(Cells.empty()))
    assert document_of(tmp_path / "smear.geojson") == {"type": "FeatureCollection", "features": []}


def colour_of(kind: int) -> tuple[int, ...]:
    return tuple(bytes.fromhex(COLOURS[KINDS[kind]][1:]))


def has_colour(picture: Any, kind: int) -> bool:
    return bool((picture == np.array(colour_of(kind), np.uint8)).all(axis=-1).any())


def test_png_shows_every_kind_and_a_legend(tmp_path: Path) -> None:
    assert saved("png", tmp_path, made(height=300, width=600)) == [Path("smear.cells.png")]
    with Image.open(tmp_path / "smear.cells.png") as picture:
        picture.load()
        assert (picture.format, picture.mode) == ("PNG", "RGB")
        assert picture.width == 600
        assert picture.height > 300
        pixels = np.asarray(picture)
    field, legend = pixels[:300], pixels[300:]
    assert all(has_colour(field, kind) for kind in range(3))
    assert all(has_colour(legend, kind) for kind in range(3))
    assert (legend == 255).all(axis=-1).mean() > 0.5
    assert tuple(field[62, 140]) == colour_of(ERYTHROCYTE)
    assert tuple(field[280, 580]) == (240, 228, 232)


def test_png_of_an_empty_field_is_the_field_and_zeros() -> None:
    smear = made(Cells.empty()).smear
    before = smear.image.copy()
    picture = draw(smear.image, Cells.empty())
    np.testing.assert_array_equal(picture[:150], before)
    assert not any(has_colour(picture[150:], kind) for kind in range(3))
    assert (picture[150:] != 255).any(), "the counts are there, without colours that no box has"
    draw(smear.image, CELLS)
    np.testing.assert_array_equal(smear.image, before)


def test_the_legend_tells_the_counts() -> None:
    one, other = (draw(made(height=300, width=600).smear.image, cells)[300:] for cells in (CELLS, CELLS[:1]))
    assert one.shape == other.shape
    assert (one != other).any()


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 900), (900, 1), (7, 5), (300, 400)])
@pytest.mark.parametrize("cells", [CELLS, Cells.empty()], ids=["cells", "none"])
def test_png_of_any_size(tmp_path: Path, height: int, width: int, cells: Cells) -> None:
    params = PngParams(longest_side=64)
    with writers.get("png")(tmp_path, params) as writer:
        writer.write(made(cells, height=height, width=width))
    with Image.open(tmp_path / "smear.cells.png") as picture:
        scale = min(1, 64 / max(height, width))
        assert picture.width == max(1, round(width * scale))
        assert picture.height > max(1, round(height * scale))


def test_png_refuses_a_picture_too_small_to_read() -> None:
    with pytest.raises(ConfigError, match="png: longest_side"):
        writers.get("png").parse({"longest_side": 3})


# --- names, places ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("stem", HOSTILE)
def test_a_hostile_name_breaks_no_format(tmp_path: Path, name: str, stem: str) -> None:
    small = made(CELLS, stem, height=20, width=20)
    saved(name, tmp_path, small, made(stem="plain", height=20, width=20))
    if name == "json":
        assert document_of(tmp_path / f"{stem}.json")["image"]["path"] == f"{stem}.png"
    if name == "coco":
        images = document_of(tmp_path / "coco.json")["images"]
        assert [image["file_name"] for image in images] == [f"{stem}.png", "plain.png"]
    if name == "geojson":
        assert len(document_of(tmp_path / f"{stem}.geojson")["features"]) == len(CELLS)
    if name == "csv":
        text = f"{stem}.png".replace("\udcff", "\\udcff")
        (image, plain) = [row["image"] for row in rows_of(tmp_path / "counts.csv")]
        assert image.removeprefix("'") == text
        assert not image.startswith(FORMULA_STARTS)
        assert plain == "plain.png"
        assert {len(row) for row in rows_of(tmp_path / "cells.csv")} == {16}


def test_numbers_are_numbers_even_below_zero(tmp_path: Path) -> None:
    saved("csv", tmp_path, made(stem="=1"))
    row = rows_of(tmp_path / "cells.csv")[0]
    assert row["image"] == "'=1.png"
    assert float(row["x1"]) == -3.25


@pytest.mark.parametrize("name", ["json", "geojson", "graphml", "yolo", "png"])
def test_equal_stems_of_two_folders_never_meet(tmp_path: Path, name: str) -> None:
    results = [made(stem=stem, height=20, width=20) for stem in ("a/x", "b/x", "x", "x.tif", "a/b/x")]
    files = [file for file in saved(name, tmp_path, *results) if file.name != "classes.txt"]
    assert len(files) == 5
    assert {file.parent for file in files} == {Path("a"), Path("b"), Path(), Path("a/b")}
    assert all(file.name.startswith("x.") for file in files)


@pytest.mark.parametrize("name", FORMATS)
def test_equal_results_are_equal_files(tmp_path: Path, name: str) -> None:
    for place in ("one", "two"):
        (tmp_path / place).mkdir()
        saved(name, tmp_path / place, made())
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


# --- failures --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FORMATS)
def test_after_a_failure_what_is_done_is_saved_whole(tmp_path: Path, name: str) -> None:
    # The failure happens between two images, inside the writer's context.
    with pytest.raises(RuntimeError, match="the next"), writers.get(name)(tmp_path) as writer:  # noqa: PT012
        writer.write(made(stem="done"))
        raise RuntimeError("the next image")
    assert writer.files
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set(writer.files)
    for path in writer.files:
        if path.suffix in {".json", ".geojson"}:
            assert document_of(path)
        if path.suffix == ".csv":
            assert rows_of(path)


@pytest.mark.parametrize("name", FORMATS)
def test_nothing_at_all_is_written_whole_too(tmp_path: Path, name: str) -> None:
    files = saved(name, tmp_path)
    if name == "coco":
        document = document_of(tmp_path / "coco.json")
        assert (document["images"], document["annotations"]) == ([], [])
    if name == "csv":
        assert files == [Path("cells.csv"), Path("counts.csv")]
        assert rows_of(tmp_path / "cells.csv") == rows_of(tmp_path / "counts.csv") == []


FIRST_FILE = {
    "json": "smear.json",
    "csv": "cells.csv",
    "coco": "coco.json",
    "yolo": "smear.txt",
    "geojson": "smear.geojson",
    "graphml": "smear.graphml",
    "png": "smear.cells.png",
}
# The last failure is told, and the names of the kinds are written after any other, too.
LAST_FAILURE = FIRST_FILE | {"yolo": "classes.txt"}


def refusal(work: Callable[[], object], names: Path) -> None:
    with pytest.raises(OutputError) as caught:
        work()
    message = str(caught.value)
    assert message.startswith(f"{names}: cannot be written (")
    assert len(message.splitlines()) == 1


@pytest.mark.parametrize("name", FORMATS)
def test_a_file_where_the_folder_should_be(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.write_text("in the way")
    refusal(lambda: saved(name, out, made()), out / LAST_FAILURE[name])
    assert out.read_text() == "in the way"


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_that_may_not_be_written_to(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    out.mkdir(mode=0o500)
    try:
        (out / "probe").touch()
    except PermissionError:
        refusal(lambda: saved(name, out, made()), out / LAST_FAILURE[name])
        assert list(out.iterdir()) == []
    else:
        pytest.skip("this user may write to any folder")


@pytest.mark.parametrize("name", FORMATS)
def test_a_folder_where_the_file_should_be(tmp_path: Path, name: str) -> None:
    in_the_way = tmp_path / FIRST_FILE[name]
    in_the_way.mkdir()
    refusal(lambda: saved(name, tmp_path, made()), in_the_way)
    assert not list(tmp_path.glob(".*.part"))
    assert in_the_way.is_dir()


def test_a_name_that_is_too_long(tmp_path: Path) -> None:
    path = tmp_path / ("x" * 300)
    refusal(lambda: write_atomically(path, "text"), path)


@contextlib.contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """Refuse files of more than ``limit`` bytes, as a disk does that has no more room."""
    resource = pytest.importorskip("resource", reason="this system has no limit on files")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_the_former_file(tmp_path: Path) -> None:
    path = tmp_path / "smear.json"
    path.write_text("former")
    with full_disk(100):
        refusal(lambda: write_atomically(path, "new" * 100), path)
    assert [file.name for file in tmp_path.iterdir()] == ["smear.json"]
    assert path.read_text() == "former"


@pytest.mark.parametrize(
    ("name", "full"), [("coco", "coco.json"), ("csv", "cells.csv"), ("csv", "counts.csv")]
)
@pytest.mark.parametrize("images", [1, 100], ids=["when closed", "on the way"])
def test_a_disk_that_fills_up_leaves_no_half_file(tmp_path: Path, name: str, full: str, images: int) -> None:
    # Without cells, the table of images is the larger one.
    cells = Cells.empty() if full == "counts.csv" else CELLS

    def work(out: Path) -> None:
        out.mkdir()
        (out / full).write_text("former")
        with writers.get(name)(out) as writer:
            for number in range(images):
                writer.write(made(cells, stem=f"{number} {'long name ' * 20}", height=2, width=2))

    work(tmp_path / "whole")
    sizes = sorted(path.stat().st_size for path in (tmp_path / "whole").iterdir())
    out = tmp_path / "full"
    with full_disk((sizes[-1] + (sizes[0] if len(sizes) > 1 else 0)) // 2):
        refusal(lambda: work(out), out / full)
    assert not list(out.glob(".*"))
    assert (out / full).read_text() == "former"
    if name == "csv":
        (other,) = {"cells.csv", "counts.csv"} - {full}
        saved_rows = (out / other).read_bytes()
        assert saved_rows and (tmp_path / "whole" / other).read_bytes().startswith(saved_rows)


def test_a_writer_that_fails_is_closed(tmp_path: Path) -> None:
    closed = []

    class Failing(Writer):
        name, version, summary = "failing", "1", "fails"

        def write(self, result: SmearResult) -> None:
            raise OutputError("no")

        def close(self) -> None:
            closed.append(self)

    with pytest.raises(OutputError, match="no"), Failing(tmp_path) as writer:
        writer.write(replace(made(), seconds=1.0))
    assert closed == [writer]


def test_coco_names_images_so_that_they_are_found_below_any_folder(tmp_path: Path) -> None:
    """The set can be prepared for training wherever its folder lies."""
    images = tmp_path / "slides" / "ward 3"
    images.mkdir(parents=True)
    save_smear(draw_smear(1, 200, 160, 1, 40.0), images / "one.png")
    found = find_images([tmp_path / "slides"]).images
    with writers.get("coco")(tmp_path) as writer:
        for image in found:
            cells = Cells(np.array([[10, 20, 60, 70]]), np.array([0]), np.array([0.9]))
            writer.write(SmearResult(read_smear(image.path), cells, image.stem_path))
    (document,) = [json.loads((tmp_path / "coco.json").read_text())["images"]]
    assert [image["file_name"] for image in document] == ["ward 3/one.png"]
    moved = tmp_path / "elsewhere"
    (tmp_path / "slides").rename(moved)
    (tmp_path / "coco.json").rename(moved / "coco.json")
    recipe = SetRecipe.model_validate({"name": "own", "format": "coco"})
    prepare(moved, tmp_path / "fields.jsonl", recipe)
    (field,) = read_fields(tmp_path / "fields.jsonl")
    assert field.boxes == [[10.0, 20.0, 60.0, 70.0]]
