"""Annotated sets as the tools of annotators write them, with what people reported of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from PIL import Image

from leukokit._patterns import search_all
from leukokit.datasets import preparation, prepare
from leukokit.datasets.annotations import parse_coco, parse_voc
from leukokit.datasets.fields import AnnotatedField, read_fields
from leukokit.datasets.formats import YoloReader
from leukokit.datasets.photographs import image_size, photo_name
from leukokit.datasets.recipe import SetRecipe
from leukokit.datasets.report import PreparationReport, Reason
from leukokit.errors import ConfigError, DataError
from leukokit.images.inputs import find_images
from leukokit.pipeline import Pipeline
from leukokit.smear import read_image
from leukokit.writers.coco import CocoWriter

ROOT = Path(__file__).parents[2]
WIDTH, HEIGHT = 40, 20


def picture(path: Path, shade: int = 1, size: tuple[int, int] = (WIDTH, HEIGHT), **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade, 90, 7)).save(path, **options)
    return path


def prepared(folder: Path, form: str, **options: Any) -> tuple[list[AnnotatedField], PreparationReport]:
    out = folder.parent / "out" / "fields.jsonl"
    recipe = SetRecipe.model_validate({"name": "mine", "format": form})
    report = prepare(folder, out, recipe, val=options.pop("val", 0), **options)
    return list(read_fields(out)), report


def coco_of(images: list[dict[str, Any]], annotations: list[dict[str, Any]]) -> str:
    categories = [{"id": 1, "name": "WBC"}, {"id": 2, "name": "RBC"}]
    rows = [{"id": n, "iscrowd": 0, "category_id": 1} | row for n, row in enumerate(annotations, 1)]
    return json.dumps({"images": images, "annotations": rows, "categories": categories})


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".tif", ".jpg", ".png"])
def test_the_size_is_that_of_the_image_as_it_is_read(tmp_path: Path, suffix: str, orientation: int) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        tag = [(274, "H", 1, orientation, True)]
        tifffile.imwrite(path, np.zeros((HEIGHT, WIDTH, 3), np.uint8), photometric="rgb", extratags=tag)
    else:
        exif = Image.Exif()
        exif[0x0112] = orientation
        picture(path, exif=exif)
    height, width = read_image(path).shape[:2]
    assert image_size(path) == (width, height)
    assert (width, height) == ((HEIGHT, WIDTH) if orientation > 4 else (WIDTH, HEIGHT))


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.uint16])
def test_a_tiff_that_detect_reads_is_prepared(tmp_path: Path, dtype: Any) -> None:
    image = np.random.default_rng(0).integers(0, 255, (HEIGHT, WIDTH, 3)).astype(dtype)
    (tmp_path / "set").mkdir()
    tifffile.imwrite(
        tmp_path / "set" / "a.tif", image / (255 if dtype is np.float32 else 1), photometric="rgb"
    )
    (tmp_path / "set" / "a.txt").write_text("0 .5 .5 .5 .5\n")
    (tmp_path / "set" / "classes.txt").write_text("WBC\n")
    fields, report = prepared(tmp_path / "set", "yolo")
    assert [field.boxes for field in fields] == [[[10, 5, 30, 15]]] and report.left_out == {}


def test_two_coco_files_of_the_same_images_are_joined_and_repeats_kept_once(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    picture(folder / "images" / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": WIDTH, "height": HEIGHT}]
    white, red = (
        {"image_id": 1, "bbox": [1, 1, 5, 5]},
        {"image_id": 1, "bbox": [9, 9, 4, 4], "category_id": 2},
    )
    (folder / "instances_wbc.json").write_text(coco_of(images, [white]))
    (folder / "instances_rbc.json").write_text(coco_of(images, [red, white]))
    (field,), report = prepared(folder, "coco")
    assert sorted(field.kinds) == ["erythrocyte", "leukocyte"]
    assert report.left_out == {Reason.REPEATED: ["images/a.png: leukocyte [1.0, 1.0, 6.0, 6.0]"]}


def test_a_bad_coco_annotation_costs_itself_alone(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    picture(folder / "a.png")
    rows: list[dict[str, Any]] = [
        {"image_id": 1, "bbox": [1, 1, 5, 5]},
        {"image_id": 1, "bbox": []},
        {"image_id": 1, "bbox": None, "segmentation": [[10, 2, 20, 2, 20, 12]]},
        {"image_id": 1},
        {"image_id": 9, "bbox": [1, 1, 2, 2]},
        {"image_id": 1, "bbox": ["x", 1, 2, 2]},
    ]
    (folder / "result.json").write_text(coco_of([{"id": 1, "file_name": "a.png"}], rows))
    (field,), report = prepared(folder, "coco")
    assert field.boxes == [[1, 1, 6, 6], [10, 2, 20, 12]]
    faults = report.left_out[Reason.BAD_ANNOTATION]
    assert len(faults) == 4 and sum("of image 9, which is not listed" in fault for fault in faults) == 1


@pytest.mark.parametrize("name", ["images\\a.png", "C:\\work\\images\\a.png", "./images/a.png", "a.png"])
def test_a_coco_file_may_name_images_as_windows_does(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "set"
    image = picture(folder / "images" / "a.png")
    (folder / "result.json").write_text(
        coco_of([{"id": 1, "file_name": name}], [{"image_id": 1, "bbox": [1, 1, 5, 5]}])
    )
    (field,), report = prepared(folder, "coco")
    assert field.image.samefile(image) and report.left_out == {}


@pytest.mark.parametrize("below", ["a.png", "ward 3/a.png"])
def test_our_own_coco_file_is_found_again(
    tmp_path: Path, below: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It lies in the folder that was searched, wherever that folder has gone since."""
    smears = tmp_path / "smears"
    image = smears / below
    image.parent.mkdir(parents=True)
    image.write_bytes((ROOT / "examples" / "smear.png").read_bytes())
    (found,) = find_images([smears]).images
    result = Pipeline(classifier=None).run(found.path, found.stem_path)
    with CocoWriter(smears) as writer:
        writer.write(result)
    moved = smears.rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    (field,), _ = prepared(moved, "coco")
    assert field.image.samefile(moved / below) and len(field.boxes) == len(result.cells)


def voc(
    objects: str, size: tuple[int, int] | None = None, corners: tuple[float, ...] = (10, 5, 30, 15)
) -> str:
    tags = ("xmin", "ymin", "xmax", "ymax")
    box = "".join(f"<{tag}>{value}</{tag}>" for tag, value in zip(tags, corners, strict=True))
    sides = f"<size><width>{size[0]}</width><height>{size[1]}</height></size>" if size else ""
    return f"<annotation>{sides}<object><name>WBC</name><bndbox>{box}</bndbox></object>{objects}</annotation>"


ROTATED = (
    "<object><type>robndbox</type><name>RBC</name><robndbox><cx>20</cx><cy>10</cy><w>8</w><h>4</h>"
    "<angle>1.5707963</angle></robndbox></object>"
)


def test_a_rotated_box_does_not_cost_its_image(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "a.xml").write_text(voc(ROTATED))
    (field,), report = prepared(tmp_path / "set", "voc")
    np.testing.assert_allclose(field.boxes, [[10, 5, 30, 15], [18, 6, 22, 14]], atol=0.01)
    assert report.left_out == {Reason.REPLACED: ["a.png: object 2, RBC: rotated box"]}


def test_an_object_without_corners_costs_itself_alone(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.png")
    (tmp_path / "set" / "a.xml").write_text(voc("<object><name>RBC</name></object>"))
    (field,), report = prepared(tmp_path / "set", "voc")
    assert field.boxes == [[10, 5, 30, 15]]
    assert report.left_out == {Reason.BAD_ANNOTATION: ["a.png: object 2, RBC: no corners (missing)"]}


def test_a_decimal_comma_is_a_decimal_point() -> None:
    text = voc("").replace("<xmin>10</xmin>", "<xmin>10,5</xmin>")
    assert parse_voc(text.encode(), "a.xml").boxes[0].box == (10.5, 5, 30, 15)


def test_boxes_annotated_at_another_size_are_scaled_by_one_factor_or_refused(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    for name, size in {"same": (40, 20), "twice": (80, 41), "turned": (20, 40), "other": (40, 30)}.items():
        picture(folder / f"{name}.png", shade=len(name) + size[1])
        (folder / f"{name}.xml").write_text(voc("", size, tuple(v * size[0] / 40 for v in (10, 5, 30, 15))))
    fields, report = prepared(folder, "voc")
    assert [field.image.stem for field in fields] == ["same", "twice"]
    np.testing.assert_allclose([field.boxes[0] for field in fields], [[10, 5, 30, 15]] * 2, atol=0.4)
    told = "annotated at {}, the image has 40x20"
    assert report.left_out == {
        Reason.SCALED: [f"twice.png: {told.format('80x41')}"],
        Reason.OTHER_SIZE: [
            f"other.png: {told.format('40x30')}",
            f"turned.png: {told.format('20x40')} (turned by its EXIF orientation?)",
        ],
    }


def test_coco_boxes_of_reduced_images_are_scaled(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "a.png")
    images = [{"id": 1, "file_name": "a.png", "width": 2 * WIDTH, "height": 2 * HEIGHT}]
    (tmp_path / "set" / "c.json").write_text(coco_of(images, [{"image_id": 1, "bbox": [20, 10, 40, 20]}]))
    (field,), report = prepared(tmp_path / "set", "coco")
    assert field.boxes == [[10, 5, 30, 15]] and list(report.left_out) == [Reason.SCALED]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("classes.txt", "WBC\n\nRBC\n\n"),
        ("Classes.TXT", "WBC\n\nRBC\n"),
        ("obj.names", "WBC\nother\nRBC\n"),
        ("data.yml", "names: {0: WBC, 2: RBC}\n"),
        ("dataset.yaml", "path: .\nnames:\n  0: WBC\n  1: x\n  2: RBC\n"),
        ("bccd.yaml", "names: [WBC, x, RBC]\n"),
    ],
)
def test_class_names_are_found_as_the_tools_write_them(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    names = YoloReader(tmp_path, {}).names
    assert (names[0], names[2]) == ("WBC", "RBC") and names.get(1) != "RBC"


def test_files_of_class_names_that_differ_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("names: [WBC, RBC]\n")
    (tmp_path / "b.yaml").write_text("names: [RBC, WBC]\n")
    (tmp_path / "pipeline.yaml").write_text("detector: yolo\n")
    with pytest.raises(DataError, match=r"a\.yaml and .*b\.yaml: class names differ"):
        YoloReader(tmp_path, {})


@pytest.mark.parametrize(
    ("form", "image", "label", "text"),
    [
        ("yolo", "Images/a.png", "Labels/a.TXT", "0 .5 .5 .5 .5\n"),
        ("voc", "JPEGImages/a.png", "ANNOTATIONS/A.XML", voc("")),
    ],
)
def test_labels_are_found_whatever_the_case_of_their_names(
    tmp_path: Path, form: str, image: str, label: str, text: str
) -> None:
    picture(tmp_path / "set" / image)
    (tmp_path / "set" / label).parent.mkdir()
    (tmp_path / "set" / label).write_text(text)
    (tmp_path / "set" / "classes.txt").write_text("WBC\n")
    (field,), _ = prepared(tmp_path / "set", form)
    assert field.boxes == [[10, 5, 30, 15]]


def test_augmented_copies_of_roboflow_are_one_photograph(tmp_path: Path) -> None:
    folder = tmp_path / "set"
    shade = 0
    for photo in range(6):
        for copy in range(3):
            shade += 1
            stem = f"p{photo}_jpg.rf.{copy}{'ab' * 15}{photo}"
            picture(folder / "train" / "images" / f"{stem}.png", shade)
            (folder / "train" / "labels").mkdir(exist_ok=True)
            (folder / "train" / "labels" / f"{stem}.txt").write_text("0 .5 .5 .5 .5\n")
    (folder / "data.yaml").write_text("names: [WBC]\n")
    fields, _ = prepared(folder, "yolo", val=0.5)
    assert {field.photo for field in fields} == {f"p{photo}" for photo in range(6)}
    sides = {photo: {f.split for f in fields if f.photo == photo} for photo in {f.photo for f in fields}}
    assert all(len(side) == 1 for side in sides.values()) and {"train"} < set().union(*sides.values())
    assert photo_name(Path("a.rf.12.jpg")) == "a.rf.12" and photo_name(Path("x_png.rf.0123abcd.jpg")) == "x"


def test_leavings_of_storage_devices_are_no_pictures_of_a_set(tmp_path: Path) -> None:
    picture(tmp_path / "set" / "NEUTROPHIL" / "a.png", 1)
    picture(tmp_path / "set" / "@eaDir" / "a.png", 2)
    picture(tmp_path / "set" / "NEUTROPHIL" / "@eaDir" / "b.png", 3)
    fields, report = prepared(tmp_path / "set", "classes")
    assert [field.image.name for field in fields] == ["a.png"] and report.left_out == {}


def pipes(folder: Path) -> None:
    for name in ("b.json", "b.png", "a.txt", "c.yaml", "classes.txt"):
        os.mkfifo(folder / name)


def yaml_bomb(folder: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 9)]
    (folder / "data.yaml").write_text("\n".join([*lines, "names: *a8"]))


@pytest.mark.parametrize("trap", [pipes, yaml_bomb])
@pytest.mark.parametrize("form", ["yolo", "coco"])
def test_a_set_with_traps_ends_at_once_in_one_line(
    tmp_path: Path, trap: Callable[[Path], None], form: str
) -> None:
    picture(tmp_path / "set" / "a.png")
    trap(tmp_path / "set")
    with pytest.raises(DataError) as caught:
        prepared(tmp_path / "set", form)
    assert "\n" not in str(caught.value)


def test_a_photo_pattern_that_backtracks_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preparation, "search_all", partial(search_all, max_seconds=1.0))
    picture(tmp_path / "set" / f"{'a' * 40}!.png")
    with pytest.raises(ConfigError, match=r"--photo-pattern .* takes too long"):
        prepared(tmp_path / "set", "yolo", photo_pattern=r"^(\w+\s?)+$")


def test_an_entity_hidden_by_its_encoding_is_refused() -> None:
    bomb = '<?xml version="1.0" encoding="utf-16"?><!DOCTYPE a [<!ENTITY l "lol">]><annotation/>'
    with pytest.raises(DataError, match="document type"):
        parse_voc(bomb.encode("utf-16"), "a.xml")


def test_faults_of_a_coco_file_are_one_line_each() -> None:
    content = coco_of([{"id": 1, "file_name": "a"}], [{"image_id": 1, "bbox": ["x\ny"]}])
    annotations, _ = parse_coco(content.encode(), "c.json")
    assert annotations["a"].faults and "\n" not in annotations["a"].faults[0]
