import csv
import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit.data.photographs import Photographs, split_of
from leukokit.data.prepare import Reason, Report, image_size, prepare_index, prepare_set, report_path
from leukokit.data.recipe import FieldsConfig, SetRecipe, load_config
from leukokit.errors import ConfigError, DataError, OutputError
from leukokit.training.fields import AnnotatedField, is_held_back, read_fields

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data"


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


def prepared(folder: Path, out: Path, **options) -> tuple[list[AnnotatedField], Report]:
    recipe = SetRecipe(name="mine", format="yolo")
    report = prepare_set(folder, recipe, out / "fields.jsonl", **options)
    return list(read_fields(out / "fields.jsonl")), report


def test_one_set_becomes_fields_and_a_report_of_the_rest(tmp_path):
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
    assert a.labelled == ("leukocyte", "erythrocyte", "platelet") and a.image.samefile(
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
        ("erythroblast", None),
    ],
)
def test_class_names_have_their_usual_meaning_or_the_given_one(name, meaning):
    recipe = SetRecipe(name="mine", format="voc", classes={"Blast": "leukocyte:blast"})
    assert recipe.meaning(name) == meaning


def test_a_class_mapped_to_no_kind_is_refused():
    with pytest.raises(ValueError, match="whose kind is none of"):
        SetRecipe(name="mine", format="voc", classes={"x": "cell"})


def test_a_set_of_unknown_classes_is_an_error_and_leaves_no_file(tmp_path):
    folder = yolo_set(tmp_path / "set", {"a": "7 .5 .5 .5 .5\n"})
    with pytest.raises(DataError, match=r"first: images/a.png: 7.*--class"):
        prepared(folder, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_what_is_there_already_survives_a_failure(tmp_path):
    (tmp_path / "fields.jsonl").write_text("before")
    with pytest.raises(DataError, match="no field is left to prepare: 2 no label file"):
        prepared(yolo_set(tmp_path / "set", {"a": None, "b": None}), tmp_path)
    assert (tmp_path / "fields.jsonl").read_text() == "before"


def test_class_folders_give_a_cell_a_picture_and_complete_no_kind(tmp_path):
    picture(tmp_path / "set/NEUTROPHIL/a.png", 1)
    picture(tmp_path / "set/debris/b.png", 2)
    report = prepare_set(
        tmp_path / "set", SetRecipe(name="mine", format="classes"), tmp_path / "f.jsonl", val=0
    )
    (field,) = read_fields(tmp_path / "f.jsonl")
    assert (field.boxes, field.kinds, field.labels) == ([[0, 0, 40, 20]], ["leukocyte"], ["neutrophil"])
    assert field.labelled == () and report.left_out == {Reason.UNKNOWN_CLASS: ["debris/b.png: debris"]}


def test_the_size_is_that_of_the_upright_image(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (40, 20)).save(tmp_path / "a.jpg", exif=exif)
    assert image_size(tmp_path / "a.jpg") == (20, 40)


@pytest.mark.parametrize(
    "options", [{"val": 1.0}, {"val": -0.1}, {"photo_pattern": "("}, {"photo_pattern": "a"}]
)
def test_wrong_options_are_said(tmp_path, options):
    with pytest.raises(ConfigError, match="--"):
        prepared(yolo_set(tmp_path / "set", {"a": ""}), tmp_path, **options)


def test_a_folder_that_is_missing_or_empty_is_said(tmp_path):
    with pytest.raises(DataError, match="no such folder"):
        prepared(tmp_path / "none", tmp_path)
    with pytest.raises(DataError, match="no image"):
        prepared(tmp_path, tmp_path)


def test_a_place_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot write"):
        prepared(yolo_set(tmp_path / "set", {"a": ""}), tmp_path / "file")


@given(st.integers(0, 5), st.floats(0.05, 0.6))
@settings(max_examples=20)
def test_the_share_of_the_split_is_kept_and_differs_from_that_of_training(seed, val):
    photos = [f"photo {number}" for number in range(2000)]
    held = {photo for photo in photos if split_of(photo, val, seed) == "val"}
    assert len(held) / len(photos) == pytest.approx(val, abs=0.05)
    # Training holds back a share of what is left by a hash of its own; it must still find some.
    assert sum(is_held_back(photo, 0.06) for photo in photos if photo not in held) > 15


def test_copies_found_by_name_and_by_content_are_chained_into_one_photograph():
    photos = Photographs()
    for photo, content in [
        ("b", None),
        ("a", "1"),
        ("c", "2"),
        ("a", "2"),
        ("d", "3"),
        ("b", "3"),
        ("e", "9"),
    ]:
        photos.add(photo, content)
    assert (
        {photos[name] for name in "ac"} == {"a"}
        and {photos[name] for name in "bd"} == {"b"}
        and photos["e"] == "e"
    )


COPIES = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7)), min_size=1, max_size=14)


@given(COPIES, st.integers(0, 3))
@settings(max_examples=25, deadline=None)
def test_no_photograph_lies_on_two_sides_of_a_split(tmp_path_factory, copies, seed):
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


def indexed(root: Path, rows: list[dict[str, str]]) -> FieldsConfig:
    """Sets ``first`` and ``second``, YOLO, and ``third``, which the configuration does not use."""
    for number, row in enumerate(rows):
        stem = picture(root / row["dataset"] / row["file"], number + 1, (4, 4)).with_suffix("")
        stem.with_suffix(".txt").write_text("0 .5 .5 .5 .5\n" * int(row.pop("cells", "1")))
    columns = ["dataset", "file", "lab", "photo", "slide", "label", "split"]
    with (root / "index.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, columns, restval="")
        writer.writeheader()
        writer.writerows(rows)
    sets = [SetRecipe(name=name, format="yolo", classes={"0": "leukocyte"}) for name in ("first", "second")]
    used = [recipe for recipe in sets if (root / recipe.name).is_dir()]
    return FieldsConfig(root=root, index=Path("index.csv"), sets=used)


def row(dataset: str, file: str, photo: str, split: str = "train", **more: str) -> dict[str, str]:
    return {"dataset": dataset, "file": f"{file}.png", "photo": photo, "split": split, **more}


def test_an_index_decides_on_splits_and_repeats(tmp_path):
    rows = [
        row("second", "a", "p1"),
        row("second", "b", "p2", "test"),
        row("second", "c", "p3", lab="here", slide="s1"),
        row("first", "d", "p1"),
        row("first", "e", "p2"),
        row("first", "f", "p4", "exclude"),
        row("first", "g", "p5", "val"),
        row("third", "h", "p6", "test"),
        row("first", "i", "p6"),
        row("first", "j", "p7"),
        row("first", "k", "p7"),
        row("second", "l", "p5", "test"),
    ]
    report = prepare_index(indexed(tmp_path, rows), tmp_path / "out" / "fields.jsonl")
    fields = list(read_fields(tmp_path / "out" / "fields.jsonl"))
    assert [(f.dataset, f.image.stem, f.split) for f in fields] == [
        ("second", "b", "test"),
        ("second", "c", "train"),
        ("first", "d", "train"),
        ("first", "j", "train"),
        ("first", "k", "train"),
        ("second", "l", "test"),
    ]
    assert (fields[1].lab, fields[1].photo, fields[1].slide) == ("here", "p3", "s1")
    assert report.left_out == {
        Reason.DUPLICATE_PHOTO: ["second/a.png"],
        Reason.OTHER_SIDE: ["first/e.png", "first/g.png", "first/i.png"],
        Reason.EXCLUDED: ["first/f.png"],
    }


def test_a_copy_that_the_index_does_not_know_of_is_found_by_its_content(tmp_path):
    config = indexed(
        tmp_path, [row("first", "a", "p1"), row("first", "c", "p3"), row("second", "b", "p2", "test")]
    )
    (tmp_path / "first/a.png").write_bytes((tmp_path / "second/b.png").read_bytes())
    report = prepare_index(config, tmp_path / "fields.jsonl")
    assert report.left_out == {Reason.OTHER_SIDE: ["first/a.png"]}


def test_labels_are_taken_only_where_it_is_clear_whose_they_are(tmp_path):
    rows = [
        row("first", "a", "p1", label="monocyte"),
        row("first", "b", "p2", label="monocyte", cells="2"),
        row("first", "c", "p3", label="monocyte;monocyte", cells="2"),
        row("first", "d", "p4", label="monocyte;basophil", cells="2"),
    ]
    config = indexed(tmp_path, rows)
    prepare_index(config, tmp_path / "fields.jsonl")
    found = [f.labels for f in read_fields(tmp_path / "fields.jsonl")]
    assert found == [["monocyte"], ["", ""], ["monocyte", "monocyte"], ["", ""]]

    ordered = [recipe.model_copy(update={"labels_in_box_order": True}) for recipe in config.sets]
    prepare_index(config.model_copy(update={"sets": ordered}), tmp_path / "fields.jsonl")
    assert list(read_fields(tmp_path / "fields.jsonl"))[3].labels == ["monocyte", "basophil"]


INDEX_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["first", "second", "third"]),
        st.integers(0, 4),
        st.sampled_from(["train", "val", "test", "exclude"]),
    ),
    min_size=1,
    max_size=12,
)


@given(INDEX_ROWS)
@settings(max_examples=25, deadline=None)
def test_no_photograph_of_an_index_lies_on_two_sides(tmp_path_factory, drawn):
    root = tmp_path_factory.mktemp("sets")
    rows = [row(dataset, f"f{n}", f"p{photo}", split) for n, (dataset, photo, split) in enumerate(drawn)]
    rows += [row("first", "own", "own"), row("second", "own", "own2")]
    prepare_index(indexed(root, rows), root / "fields.jsonl")
    fields = list(read_fields(root / "fields.jsonl"))
    protected = {f"p{photo}" for _, photo, split in drawn if split in ("val", "test")}
    trained = {f.photo for f in fields if f.split == "train"}
    assert not trained & protected
    assert not {f.photo for f in fields if f.split == "val"} & {f.photo for f in fields if f.split == "test"}
    assert len({(f.dataset, f.photo) for f in fields if f.split == "train"}) == len(trained)
    assert {"own", "own2"} <= trained


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("dataset,file\n", "no column 'lab'"),
        ("dataset,file,lab,photo,slide,label,split\nfirst,a.png,,p,,,learn\n", "line 2: split 'learn'"),
        ("dataset,file,lab,photo,slide,label,split\nother,a.png,,p,,,train\n", "no row of dataset 'first'"),
        (None, "cannot read the index"),
    ],
)
def test_a_wrong_index_is_said(tmp_path, text, said):
    config = indexed(tmp_path, [row("first", "a", "p")])
    index = tmp_path / "index.csv"
    index.unlink() if text is None else index.write_text(text)
    with pytest.raises(DataError, match=said):
        prepare_index(config, tmp_path / "fields.jsonl")


def test_another_root_goes_before_the_configured_one(tmp_path):
    config = indexed(tmp_path, [row("first", "a", "p")]).model_copy(update={"root": Path("nowhere")})
    with pytest.raises(DataError, match="nowhere"):
        prepare_index(config, tmp_path / "fields.jsonl")
    assert prepare_index(config, tmp_path / "fields.jsonl", root=tmp_path).fields == {("first", "train"): 1}


@pytest.mark.parametrize(
    "text", ["", "sets: []", "root: a\nindex: b\nsets: [{name: c, format: bmp}]", "[", None]
)
def test_a_wrong_configuration_is_one_line(tmp_path, text):
    path = tmp_path / "fields.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_config(path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real smears (../shared/data) are not here")
def test_the_real_sets_are_prepared_without_a_leak(tmp_path):
    config = load_config(REPOSITORY / "configs" / "fields.yaml")
    report = prepare_index(config, tmp_path / "fields.jsonl", root=REAL)
    assert report.fields == {
        ("txl-pbc", "train"): 794,
        ("txl-pbc", "val"): 234,
        ("txl-pbc", "test"): 66,
        ("bccd", "train"): 100,
        ("bccd", "test"): 131,
        ("chula", "train"): 313,
        ("pbc", "train"): 1680,
    }
    assert {reason: len(files) for reason, files in report.left_out.items()} == {
        Reason.EXCLUDED: 202,
        Reason.DUPLICATE_PHOTO: 133,
    }
    with (REAL / "fields.csv").open(newline="") as stream:
        held = {r["photo"] for r in csv.DictReader(stream) if r["split"] in ("val", "test")}
    fields = list(read_fields(tmp_path / "fields.jsonl"))
    assert not {f.photo for f in fields if f.split == "train"} & held
    first = next(f for f in fields if f.dataset == "bccd")
    assert first.boxes[0] == [260, 177, 491, 376] and first.labels[0] == "neutrophil"
    assert all(label for f in fields if f.dataset in ("chula", "pbc") for label in f.labels)
