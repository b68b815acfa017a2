import json
import math
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from leukokit.datasets.annotations import NamedBox, parse_coco, parse_voc, parse_yolo
from leukokit.datasets.formats import ClassFolderReader, CocoReader, VocReader, YoloReader
from leukokit.errors import DataError

SIZES = st.tuples(st.integers(1, 20_000), st.integers(1, 20_000))
NAMES = st.text(
    st.characters(min_codepoint=33, max_codepoint=0x24F, exclude_categories=("C", "Z")), min_size=1
)
NUMBERS = st.floats(-1e5, 1e5, width=32)
BOXES = st.tuples(NUMBERS, NUMBERS, NUMBERS, NUMBERS)
NAMED = st.lists(st.builds(NamedBox, NAMES, BOXES), max_size=8)


def close(found: list[NamedBox], expected: list[NamedBox]) -> bool:
    return len(found) == len(expected) and all(
        f.name == e.name and all(math.isclose(p, q, abs_tol=1e-3) for p, q in zip(f.box, e.box, strict=True))
        for f, e in zip(found, expected, strict=True)
    )


def write_yolo(boxes: list[NamedBox], names: list[str], size: tuple[int, int]) -> bytes:
    lines = []
    for box in boxes:
        x1, y1, x2, y2 = (value / size[i % 2] for i, value in enumerate(box.box))
        lines.append(f"{names.index(box.name)} {(x1 + x2) / 2!r} {(y1 + y2) / 2!r} {x2 - x1!r} {y2 - y1!r}")
    return "\n".join(lines).encode()


def write_voc(boxes: list[NamedBox]) -> bytes:
    objects = "".join(
        f"<object><name>{escape(box.name)}</name><pose>Left</pose><bndbox>"
        + "".join(
            f"<{tag}>{value!r}</{tag}>"
            for tag, value in zip(("xmin", "ymin", "xmax", "ymax"), box.box, strict=True)
        )
        + "</bndbox></object>"
        for box in boxes
    )
    return f"<annotation><filename>a.jpg</filename>{objects}</annotation>".encode()


def write_coco(files: dict[str, list[NamedBox]]) -> bytes:
    names = sorted({box.name for boxes in files.values() for box in boxes})
    return json.dumps(
        {
            "images": [{"id": i, "file_name": name} for i, name in enumerate(files)],
            "categories": [{"id": 7 + i, "name": name} for i, name in enumerate(names)],
            "annotations": [
                {"image_id": i, "category_id": 7 + names.index(b.name), "bbox": [x1, y1, x2 - x1, y2 - y1]}
                for i, boxes in enumerate(files.values())
                for b in boxes
                for x1, y1, x2, y2 in [b.box]
            ],
        }
    ).encode()


@given(NAMED, SIZES)
def test_yolo_round_trip(boxes: Any, size: Any) -> None:
    names = sorted({box.name for box in boxes})
    assert close(
        parse_yolo(write_yolo(boxes, names, size), dict(enumerate(names)), size, "a.txt").boxes, boxes
    )


@given(NAMED)
def test_voc_round_trip(boxes: Any) -> None:
    assert close(parse_voc(write_voc(boxes), "a.xml").boxes, boxes)


@given(st.dictionaries(NAMES, NAMED, max_size=4))
def test_coco_round_trip(files: Any) -> None:
    found, faults = parse_coco(write_coco(files), "a.json")
    assert list(found) == list(files) and faults == []
    assert all(close(found[name].boxes, boxes) for name, boxes in files.items())


WORDS = st.sampled_from(["0", "1", "0.5", "nan", "-inf", "1e999", "x", "1_0", "٣", "", "\t", "9" * 400])
YOLO_LIKE = st.lists(st.lists(WORDS, max_size=9).map(" ".join), max_size=4).map("\n".join).map(str.encode)
TAGS = st.sampled_from(["annotation", "object", "name", "bndbox", "xmin", "ymin", "xmax", "ymax"])
XML_LIKE = st.recursive(
    st.one_of(WORDS, st.sampled_from(["&lol;", "<", "<!DOCTYPE a>"])),
    lambda inner: st.builds(
        lambda tag, parts: f"<{tag}>{''.join(parts)}</{tag}>", TAGS, st.lists(inner, max_size=5)
    ),
)
JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["images", "annotations", "categories", "id", "file_name", "image_id", "bbox", "name"]
            ),
            inner,
        )
    ),
    max_leaves=20,
)


@given(st.binary() | YOLO_LIKE)
def test_no_label_file_breaks_the_yolo_parser(content: Any) -> None:
    try:
        boxes = parse_yolo(content, {0: "a"}, (20_000, 20_000), "a.txt").boxes
    except DataError as error:
        assert str(error).startswith("a.txt") and "\n" not in str(error)
    else:
        assert all(math.isfinite(value) for box in boxes for value in box.box)


@given(st.binary() | XML_LIKE.map(lambda text: f"<annotation>{text}</annotation>".encode()))
def test_no_label_file_breaks_the_voc_parser(content: Any) -> None:
    try:
        boxes = parse_voc(content, "a.xml").boxes
    except DataError as error:
        assert str(error).startswith("a.xml") and "\n" not in str(error)
    else:
        assert all(math.isfinite(value) and box.name for box in boxes for value in box.box)


@given(st.binary() | JSON.map(lambda value: json.dumps(value).encode()))
def test_no_file_breaks_the_coco_parser(content: Any) -> None:
    try:
        annotations, faults = parse_coco(content, "a.json")
    except DataError as error:
        assert str(error).startswith("a.json") and "\n" not in str(error)
    else:
        assert all(math.isfinite(v) for one in annotations.values() for box in one.boxes for v in box.box)
        assert not any("\n" in fault for fault in faults)


def test_deep_json_is_a_data_error() -> None:
    with pytest.raises(DataError):
        parse_coco(b"[" * 100_000, "a.json")


def test_entities_are_refused() -> None:
    bomb = b'<!DOCTYPE a [<!ENTITY l "lol">]><annotation><object><name>&l;</name></object></annotation>'
    with pytest.raises(DataError, match="document type"):
        parse_voc(bomb, "a.xml")


def test_a_polygon_becomes_the_box_around_it() -> None:
    (box,) = parse_yolo(b"1 0.1 0.2 0.5 0.4 0.3 0.9", {}, (100, 10), "a.txt").boxes
    assert box.name == "1" and box.box == pytest.approx((10, 2, 50, 9))


@pytest.mark.parametrize(
    "line", [b"0 .5 .5 .1", b"0 .5 .5 .1 .1 .9", b"0.5 .5 .5 .1 .1", b"-1 .5 .5 .1 .1", b"a b"]
)
def test_a_wrong_yolo_line_is_named(line: Any) -> None:
    with pytest.raises(DataError, match=r"a.txt, line 2"):
        parse_yolo(b"0 .5 .5 .1 .1\n" + line, {}, (10, 10), "a.txt")


def test_crowd_regions_are_no_cells() -> None:
    content = json.loads(write_coco({"a.jpg": [NamedBox("WBC", (0, 0, 5, 5))] * 2}))
    content["annotations"][0]["iscrowd"] = 1
    assert len(parse_coco(json.dumps(content).encode(), "a.json")[0]["a.jpg"].boxes) == 1


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.JPG", "train/labels/a.txt"),
        ("images/images/a.png", "images/labels/a.txt"),
        ("a.tif", "a.txt"),
    ],
)
def test_yolo_labels_are_found_in_the_usual_layouts(tmp_path: Path, image: Any, label: Any) -> None:
    for name, content in ((image, b""), (label, b"1 .5 .5 1 1"), ("data.yaml", b"names: [WBC, RBC]")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    reader = YoloReader(tmp_path, {})
    assert list(reader.images()) == [tmp_path / image]
    annotation = reader.read(tmp_path / image, (4, 2))
    assert annotation is not None and annotation.boxes == [NamedBox("RBC", (0, 0, 4, 2))]


@pytest.mark.parametrize(
    ("name", "content"),
    [("data.yaml", "names: {0: WBC, 3: RBC}"), ("labels/classes.txt", "WBC\nother\nx\nRBC\n")],
)
def test_yolo_class_names_are_found(tmp_path: Path, name: Any, content: Any) -> None:
    (tmp_path / "labels").mkdir()
    (tmp_path / name).write_text(content)
    names = YoloReader(tmp_path, {0: "mine"}).names
    assert (names[0], names[3]) == ("mine", "RBC")


@pytest.mark.parametrize("content", ["names: 3", "nc: 3", "[", "names: {a: b}", "x"])
def test_class_names_that_cannot_be_read_are_said(tmp_path: Path, content: Any) -> None:
    (tmp_path / "data.yaml").write_text(content)
    with pytest.raises(DataError, match=r"data\.yaml: no class names"):
        YoloReader(tmp_path, {})


@pytest.mark.parametrize(
    ("image", "label"), [("JPEGImages/a.jpg", "Annotations/a.xml"), ("x/a.jpg", "x/a.xml")]
)
def test_voc_labels_are_found_in_the_usual_layouts(tmp_path: Path, image: Any, label: Any) -> None:
    boxes = [NamedBox("WBC", (1, 2, 3, 4))]
    for name, content in ((image, b""), (label, write_voc(boxes))):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    annotation = VocReader(tmp_path).read(tmp_path / image, (9, 9))
    assert annotation is not None and annotation.boxes == boxes
    (tmp_path / label).unlink()
    assert VocReader(tmp_path).read(tmp_path / image, (9, 9)) is None


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("train2017/a.jpg", "annotations/instances_train2017.json"),
        ("images/val2017/a.jpg", "annotations/instances_val2017.json"),
        ("train/a.jpg", "train/_annotations.coco.json"),
        ("images/a.jpg", "result.json"),
    ],
)
def test_coco_images_are_found_in_the_usual_layouts(tmp_path: Path, image: Any, label: Any) -> None:
    boxes = [NamedBox("WBC", (1, 2, 3, 4))]
    for name, content in ((image, b""), (label, write_coco({"a.jpg": boxes})), ("other.json", b"{}")):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    reader = CocoReader(tmp_path)
    assert list(reader.images()) == [tmp_path / image]
    annotation = reader.read(tmp_path / image, (9, 9))
    assert annotation is not None and annotation.boxes == boxes


def test_a_folder_without_coco_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no COCO file"):
        CocoReader(tmp_path)


def test_a_class_folder_names_the_cell(tmp_path: Path) -> None:
    image = tmp_path / "train/EOSINOPHIL/a.png"
    image.parent.mkdir(parents=True)
    image.touch()
    reader = ClassFolderReader(tmp_path)
    assert list(reader.images()) == [image]
    annotation = reader.read(image, (30, 20))
    assert annotation is not None and annotation.boxes == [NamedBox("EOSINOPHIL", (0, 0, 30, 20))]
