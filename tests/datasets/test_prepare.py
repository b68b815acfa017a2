import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit.datasets.fields import AnnotatedField, read_fields
from leukokit.datasets.photographs import image_size
from leukokit.datasets.preparation import prepare_set
from leukokit.datasets.recipe import SetRecipe
from leukokit.datasets.report import PreparationReport, Reason, report_path
from leukokit.errors import ConfigError, DataError, OutputError


def picture(path: Path, shade: int, size: tuple[int, int] = (40, 20)) -> Path:
    """A file of its own for every shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(path)
    return path


def yolo_set(folder: Path, labels: dict[str, str | None]) -> Path:
    for shade, (name, text) in enumerate(labels.items()):
        picture(folder / "images" / f"{name}.png", shade)
        if text is not None:
            (folder / "labels").mkdir(exist_ok=True)
            (folder / "labels" / f"{name}.txt").write_text(text)
    (folder / "classes.txt").write_text("WBC\nRBC\nPlatelets\nsmudge\n")
    return folder


def prepared(folder: Path, out: Path, **options: Any) -> tuple[list[AnnotatedField], PreparationReport]:
    recipe = SetRecipe(name="mine", format="yolo")
    report = prepare_set(folder, recipe, out / "fields.jsonl", **options)
    return list(read_fields(out / "fields.jsonl")), report


def test_one_set_becomes_fields_and_a_report_of_the_rest(tmp_path: Path) -> None:
    folder = yolo_set(
        tmp_path / "set",
        {
            "a": "0 .5 .5 .5 .5\n1 .25 .5 .1 .2\n",
            "b": None,
            "c": "0 .5 .5 0 .5\n1 2 2 .1 .1\n2 1 .5 .2 .2\n3 .5 .5 .1 .1\n",
            "d": "0 .5 .5\n",
            "e": "",
        },
    )
    (folder / "images/f.png").write_bytes(b"no image")
    (folder / "images/g.png").write_bytes((folder / "images/a.png").read_bytes())
    fields, report = prepared(folder, tmp_path, val=0, lab="here")

    assert [f.image.name for f in fields] == ["a.png", "c.png", "e.png"]
    a, c, e = fields
    assert a.boxes == [[10, 5, 30, 15], [8, 8, 12, 12]] and a.kinds == ["leukocyte", "erythrocyte"]
    assert (a.dataset, a.lab, a.photo, a.slide, a.split) == ("mine", "here", "a", "", "train")
    assert c.boxes == [[36, 8, 40, 12]] and c.kinds == ["platelet"] and e.boxes == []
    assert a.annotated_kinds == ("leukocyte", "erythrocyte", "platelet") and a.image.samefile(
        folder / "images/a.png"
    )
    expected = {
        Reason.NO_LABEL_FILE: ["images/b.png"],
        Reason.NO_AREA: ["images/c.png: WBC [20.0, 5.0, 20.0, 15.0]"],
        Reason.OUTSIDE: ["images/c.png: RBC [78.0, 39.0, 82.0, 41.0]"],
        Reason.CLIPPED: ["images/c.png: Platelets [36.0, 8.0, 44.0, 12.0]"],
        Reason.UNKNOWN_CLASS: ["images/c.png: smudge"],
        Reason.UNREADABLE_IMAGE: ["images/f.png"],
        Reason.DUPLICATE_PHOTO: ["images/g.png"],
    }
    unreadable = report.left_out.pop(Reason.UNREADABLE_LABELS)
    assert report.left_out == expected
    assert len(unreadable) == 1 and "d.txt, line 1" in unreadable[0]
    written = json.loads(report_path(tmp_path / "fields.jsonl").read_text())
    assert written["left_out"]["no label file"] == {"count": 1, "files": ["images/b.png"]}
    assert written["fields"] == {"mine train": 3}


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("WBC", ("leukocyte", "")),
        ("White-Blood_Cells", ("leukocyte", "")),
        ("RBC", ("erythrocyte", "")),
        ("Platelets", ("platelet", "")),
        ("NEUTROPHIL", ("leukocyte", "neutrophil")),
        ("eosinophils", ("leukocyte", "eosinophil")),
        ("blast", ("leukocyte", "blast")),
        ("nRBC", ("leukocyte", "erythroblast")),
        ("IG", ("leukocyte", "immature granulocyte")),
        ("smudge", None),
    ],
)
def test_class_names_have_their_usual_meaning_or_the_given_one(name: Any, meaning: Any) -> None:
    recipe = SetRecipe(name="mine", format="voc", classes={"Blast": "leukocyte:blast"})
    assert recipe.meaning(name) == meaning


def test_a_class_mapped_to_no_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="whose kind must be one of"):
        SetRecipe(name="mine", format="voc", classes={"x": "cell"})


def test_a_set_of_unknown_classes_is_an_error_and_leaves_no_file(tmp_path: Path) -> None:
    folder = yolo_set(tmp_path / "set", {"a": "7 .5 .5 .5 .5\n"})
    with pytest.raises(DataError, match=r"first: images/a.png: 7.*--class"):
        prepared(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_there_already_survives_a_failure(tmp_path: Path) -> None:
    (tmp_path / "fields.jsonl").write_text("before")
    with pytest.raises(DataError, match="no field is left to prepare: 2 no label file"):
        prepared(yolo_set(tmp_path / "set", {"a": None, "b": None}), tmp_path)
    assert (tmp_path / "fields.jsonl").read_text() == "before"


def test_class_folders_give_a_cell_a_picture_and_complete_no_kind(tmp_path: Path) -> None:
    picture(tmp_path / "set/NEUTROPHIL/a.png", 1)
    picture(tmp_path / "set/debris/b.png", 2)
    report = prepare_set(
        tmp_path / "set", SetRecipe(name="mine", format="classes"), tmp_path / "f.jsonl", val=0
    )
    (field,) = read_fields(tmp_path / "f.jsonl")
    assert (field.boxes, field.kinds, field.labels) == ([[0, 0, 40, 20]], ["leukocyte"], ["neutrophil"])
    assert field.annotated_kinds == () and report.left_out == {Reason.UNKNOWN_CLASS: ["debris/b.png: debris"]}


def test_the_size_is_that_of_the_upright_image(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (20, 40)


@pytest.mark.parametrize(
    "options", [{"val": 1.0}, {"val": -0.1}, {"photo_pattern": "("}, {"photo_pattern": "a"}]
)
def test_wrong_options_are_said(tmp_path: Path, options: Any) -> None:
    with pytest.raises(ConfigError, match="--"):
        prepared(yolo_set(tmp_path / "set", {"a": ""}), tmp_path, **options)


def test_a_folder_that_is_missing_or_empty_is_said(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        prepared(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match="no image"):
        prepared(tmp_path, tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot make the folder"):
        prepared(yolo_set(tmp_path / "set", {"a": ""}), tmp_path / "file")


def test_the_share_of_photographs_is_that_asked_for_of_those_with_annotations(tmp_path: Path) -> None:
    labels = {f"p{number}": "" for number in range(8)} | {f"none{number}": None for number in range(8)}
    folder = yolo_set(tmp_path / "set", labels)
    for seed in range(4):
        fields, _ = prepared(folder, tmp_path, val=0.5, seed=seed)
        assert sorted(field.split for field in fields) == ["train"] * 4 + ["val"] * 4


def test_likely_copies_are_told_unless_a_pattern_names_the_photographs(tmp_path: Path) -> None:
    folder = yolo_set(tmp_path / "set", {"x": "", "x_rot": "", "y": ""})
    _, report = prepared(folder, tmp_path)
    assert report.left_out == {Reason.LIKELY_COPY: ["images/x_rot.png and x"]}
    fields, report = prepared(folder, tmp_path, photo_pattern="^([a-z])")
    assert report.left_out == {} and [field.photo for field in fields] == ["x", "x", "y"]


COPIES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=14)


@given(COPIES, st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_no_photograph_lies_on_two_sides_of_a_split(
    tmp_path_factory: pytest.TempPathFactory, copies: Any, seed: Any
) -> None:
    """Copies share a photo's name, a content, or are linked through other copies."""
    folder = tmp_path_factory.mktemp("set")
    for number, (photo, shade) in enumerate(copies):
        picture(folder / f"p{photo}_copy{number}.png", shade, (4, 4)).with_suffix(".txt").touch()
    fields, report = prepared(folder, folder, photo_pattern="^(p[0-9])_", val=0.5, seed=seed)
    shades = {f"p{photo}_copy{number}.png": shade for number, (photo, shade) in enumerate(copies)}
    for one, other in itertools.combinations(fields, 2):
        same_name = one.image.name[:2] == other.image.name[:2]
        assert shades[one.image.name] != shades[other.image.name]
        assert not same_name or (one.split == other.split and one.photo == other.photo)
    # A file left out as a copy links the name of its photo to that of the file it repeats.
    sides: dict[str, set[str]] = {}
    for field in fields:
        for photo, shade in copies:
            if shade == shades[field.image.name]:
                sides.setdefault(f"p{photo}", set()).add(field.split)
    assert all(len(side) == 1 for side in sides.values())
    assert len(fields) + len(report.left_out.get(Reason.DUPLICATE_PHOTO, [])) == len(copies)
