import csv
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit._yaml import load_model
from leukokit.cli import main
from leukokit.datasets.fields import AnnotatedField, read_fields
from leukokit.datasets.preparation import prepare_index
from leukokit.datasets.recipe import FieldsConfig, SetRecipe
from leukokit.datasets.report import PreparationReport, Reason
from leukokit.errors import ConfigError, DataError
from leukokit.taxonomy import LEUKOCYTE_CLASSES

REPOSITORY = Path(__file__).parents[2]
REAL = REPOSITORY.parent / "shared" / "data"


def picture(path: Path, shade: int, size: tuple[int, int] = (40, 20)) -> Path:
    """A file of its own for every shade."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, (shade % 256, shade // 256, 7)).save(path)
    return path


def indexed(root: Path, rows: list[dict[str, str]]) -> FieldsConfig:
    """Sets ``first`` and ``second``, YOLO, and ``third``, which the configuration does not use."""
    for number, row in enumerate(rows):
        stem = picture(root / row["dataset"] / row["file"], number + 1, (4, 4)).with_suffix("")
        lines = [f"0 .5 .5 .{5 - cell} .5\n" for cell in range(int(row.pop("cells", "1")))]
        stem.with_suffix(".txt").write_text("".join(lines))
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


def test_an_index_decides_on_splits_and_repeats(tmp_path: Path) -> None:
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


def test_a_copy_that_the_index_does_not_know_of_is_found_by_its_content(tmp_path: Path) -> None:
    config = indexed(
        tmp_path, [row("first", "a", "p1"), row("first", "c", "p3"), row("second", "b", "p2", "test")]
    )
    (tmp_path / "first/a.png").write_bytes((tmp_path / "second/b.png").read_bytes())
    report = prepare_index(config, tmp_path / "fields.jsonl")
    assert report.left_out == {Reason.OTHER_SIDE: ["first/a.png"]}


def test_labels_are_taken_only_where_it_is_clear_whose_they_are(tmp_path: Path) -> None:
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
def test_no_photograph_of_an_index_lies_on_two_sides(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any
) -> None:
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
def test_a_wrong_index_is_said(tmp_path: Path, text: Any, said: Any) -> None:
    config = indexed(tmp_path, [row("first", "a", "p")])
    index = tmp_path / "index.csv"
    index.unlink() if text is None else index.write_text(text)
    with pytest.raises(DataError, match=said):
        prepare_index(config, tmp_path / "fields.jsonl")


def own_index(folder: Path, rows: list[dict[str, str]]) -> Path:
    """``own.csv`` of a set, with the columns of its rows, and a picture of its own shade for every row."""
    for number, listed in enumerate(rows):
        picture(folder / listed["file"], 1000 + number, (6, 4))
    with (folder / "own.csv").open("w", newline="") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return folder / "own.csv"


def with_pictures(config: FieldsConfig, **settings: object) -> FieldsConfig:
    """The configuration and, after its sets, one of class folders with an index of its own."""
    recipe = SetRecipe.model_validate(
        {"name": "cells", "format": "classes", "index": "own.csv", "split": "test", **settings}
    )
    return config.model_copy(update={"sets": [*config.sets, recipe]})


def test_pictures_of_one_cell_take_their_class_from_the_folder_or_the_index(tmp_path: Path) -> None:
    rows = [
        {"file": "EOSINOPHIL/a.png", "label": "", "lab": "", "split": ""},
        {"file": "images/a.png", "label": "Monocytes", "lab": "", "split": ""},
        {"file": "images/b.png", "label": "erythroblast", "lab": "there", "split": "train"},
        {"file": "images/c.png", "label": "", "lab": "", "split": ""},
    ]
    own_index(tmp_path / "cells", rows)
    picture(tmp_path / "cells/masks/a.png", 3)
    config = with_pictures(
        indexed(tmp_path, [row("first", "a", "a")]), classes={"images": "leukocyte"}, lab="here"
    )
    report = prepare_index(config, tmp_path / "fields.jsonl")
    boxed, *fields = read_fields(tmp_path / "fields.jsonl")
    assert [(f.labels, f.lab, f.split) for f in fields] == [
        (["eosinophil"], "here", "test"),
        (["monocyte"], "here", "test"),
        (["erythroblast"], "there", "train"),
        ([""], "here", "test"),
    ]
    assert all((f.boxes, f.kinds, f.annotated_kinds) == ([[0, 0, 6, 4]], ["leukocyte"], ()) for f in fields)
    # Without a column of photographs every file is one of its own, also beside its namesakes.
    assert len({boxed.photo, *(f.photo for f in fields)}) == 5 and report.left_out == {}


def test_a_common_index_serves_pictures_without_a_box_too(tmp_path: Path) -> None:
    config = indexed(tmp_path, [row("first", "images/a", "p", label="basophil", slide="s")])
    pictures = SetRecipe(name="first", format="classes", classes={"images": "leukocyte"})
    prepare_index(config.model_copy(update={"sets": [pictures]}), tmp_path / "fields.jsonl")
    (field,) = read_fields(tmp_path / "fields.jsonl")
    assert (field.boxes, field.labels, field.slide) == ([[0, 0, 4, 4]], ["basophil"], "s")


def test_a_test_set_of_copies_is_kept_whole_and_holds_its_photographs_back(tmp_path: Path) -> None:
    """The photographs keep to one side, also where the set of copies is named last."""
    rows = [
        {"file": "NEUTROPHIL/1.png", "photo": "p1"},
        {"file": "NEUTROPHIL/2.png", "photo": "p1"},
        {"file": "NEUTROPHIL/3.png", "photo": ""},
        {"file": "NEUTROPHIL/4.png", "photo": ""},
        {"file": "MONOCYTE/1.png", "photo": ""},
        {"file": "MONOCYTE/2.png", "photo": "p2"},
        {"file": "MONOCYTE/3.png", "photo": "p3"},
    ]
    folder = own_index(tmp_path / "cells", rows).parent
    (folder / "NEUTROPHIL/2.png").write_bytes((folder / "NEUTROPHIL/1.png").read_bytes())
    (folder / "MONOCYTE/3.png").write_bytes((folder / "MONOCYTE/2.png").read_bytes())
    common = [row("first", "a", "p1"), row("first", "b", "p2", "test"), row("second", "c", "free")]
    report = prepare_index(with_pictures(indexed(tmp_path, common)), tmp_path / "fields.jsonl")
    fields = list(read_fields(tmp_path / "fields.jsonl"))
    assert report.fields == {("cells", "test"): 7, ("first", "test"): 1, ("second", "train"): 1}
    assert report.left_out == {Reason.OTHER_SIDE: ["first/a.png"]}
    photos = [f.photo for f in fields if f.dataset == "cells"]
    assert photos == [
        "p1",
        "p1",
        *["unknown NEUTROPHIL of cells"] * 2,
        "unknown MONOCYTE of cells",
        "p2",
        "p2",
    ]


def test_copies_of_unknown_origin_are_not_trained_on_once_one_of_them_is_a_test(tmp_path: Path) -> None:
    rows = [
        {"file": "NEUTROPHIL/1.png", "photo": "", "split": "train"},
        {"file": "NEUTROPHIL/2.png", "photo": "", "split": ""},
        {"file": "MONOCYTE/1.png", "photo": "", "split": "train"},
    ]
    own_index(tmp_path / "cells", rows)
    report = prepare_index(with_pictures(indexed(tmp_path, [row("first", "a", "a")])), tmp_path / "f.jsonl")
    assert report.fields == {("first", "train"): 1, ("cells", "test"): 1, ("cells", "train"): 1}
    assert report.left_out == {Reason.OTHER_SIDE: ["cells/NEUTROPHIL/1.png"]}


OWN_ROWS = st.lists(
    st.tuples(
        st.sampled_from(["MONOCYTE", "BASOPHIL"]),
        st.sampled_from(["", "p0", "p1", "p2", "q"]),
        st.sampled_from(["", "train", "val", "test", "exclude"]),
    ),
    min_size=1,
    max_size=8,
)


@given(INDEX_ROWS, OWN_ROWS, st.sampled_from(["train", "test"]))
@settings(max_examples=25, deadline=None)
def test_no_photograph_lies_on_two_sides_of_two_indexes(
    tmp_path_factory: pytest.TempPathFactory, drawn: Any, own: Any, usual: Any
) -> None:
    root = tmp_path_factory.mktemp("sets")
    common = [row(dataset, f"f{n}", f"p{photo}", split) for n, (dataset, photo, split) in enumerate(drawn)]
    listed = [
        {"file": f"{name}/{n}.png", "photo": photo, "split": split}
        for n, (name, photo, split) in enumerate(own)
    ]
    own_index(root / "cells", listed)
    config = with_pictures(indexed(root, [*common, row("first", "own", "own")]), split=usual)
    report = prepare_index(config, root / "fields.jsonl")
    fields = list(read_fields(root / "fields.jsonl"))
    sides: dict[str, set[str]] = {}
    for field in fields:
        sides.setdefault(field.photo, set()).add(field.split)
    assert all(len(side) == 1 for side in sides.values())
    assert report.fields["cells", "test"] == [split or usual for _, _, split in own].count("test")
    tested = {f"p{photo}" for _, photo, split in drawn if split == "test"} | {
        photo or f"unknown {name} of cells" for name, photo, split in own if (split or usual) == "test"
    }
    assert all(f.split == "test" for f in fields if f.photo in tested)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name\na.png\n", "no column 'file'"),
        ("file,split\na.png,learn\n", "line 2: split 'learn'"),
        ('file,split\na.png,"le\narn"\n', "line 3: split"),
        ("file,photo\n,p\n", "line 2: no file is named"),
        ("file\na\0.png\n", "no file is named|not a CSV file"),
        (None, "cannot read the index"),
    ],
)
def test_a_wrong_index_of_a_set_is_said(tmp_path: Path, text: Any, said: Any) -> None:
    config = with_pictures(indexed(tmp_path, [row("first", "a", "p")]))
    index = own_index(tmp_path / "cells", [{"file": "MONOCYTE/a.png"}])
    index.unlink() if text is None else index.write_text(text)
    with pytest.raises(DataError, match=said) as raised:
        prepare_index(config, tmp_path / "fields.jsonl")
    assert str(index) in str(raised.value) and "\n" not in str(raised.value)


def test_an_index_without_split_and_a_set_without_one_is_said(tmp_path: Path) -> None:
    own_index(tmp_path / "cells", [{"file": "MONOCYTE/a.png"}])
    with pytest.raises(DataError, match="line 2: split '' is none of"):
        prepare_index(
            with_pictures(indexed(tmp_path, [row("first", "a", "p")]), split=""), tmp_path / "fields.jsonl"
        )


def test_a_set_is_listed_by_one_index_only(tmp_path: Path) -> None:
    config = indexed(tmp_path, [row("first", "a", "p"), row("cells", "b", "p")])
    own_index(tmp_path / "cells", [{"file": "MONOCYTE/a.png"}])
    with pytest.raises(DataError, match="lists dataset 'cells', which has an index of its own"):
        prepare_index(with_pictures(config), tmp_path / "fields.jsonl")


@pytest.mark.parametrize("setting", [{"lab": "here"}, {"split": "test"}, {"index": "a.csv", "split": "x"}])
def test_defaults_of_an_index_need_one(setting: Any) -> None:
    with pytest.raises(ValueError, match=r"need an 'index'|Input should be"):
        SetRecipe.model_validate({"name": "mine", "format": "classes", **setting})


def test_another_root_goes_before_the_configured_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = indexed(tmp_path, [row("first", "a", "p")]).model_copy(update={"root": Path("nowhere")})
    with pytest.raises(DataError, match="nowhere"):
        prepare_index(config, tmp_path / "fields.jsonl")
    (tmp_path / "config.yaml").write_text(config.model_dump_json())
    command = ["data", "prepare", "--config", tmp_path / "config.yaml", "--root", tmp_path]
    monkeypatch.setattr(sys, "argv", ["leukokit", *map(str, command), "--out", str(tmp_path / "f.jsonl")])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code and [f.image.stem for f in read_fields(tmp_path / "f.jsonl")] == ["a"]


@pytest.mark.parametrize(
    "text", ["", "sets: []", "root: a\nindex: b\nsets: [{name: c, format: bmp}]", "[", None]
)
def test_a_wrong_configuration_is_one_line(tmp_path: Path, text: Any) -> None:
    path = tmp_path / "fields.yaml"
    if text is not None:
        path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_model(FieldsConfig, path)
    assert str(path) in str(raised.value) and "\n" not in str(raised.value)


def resolved(fields: Iterable[AnnotatedField]) -> list[AnnotatedField]:
    return [replace(field, image=field.image.resolve()) for field in fields]


def configured(name: str) -> FieldsConfig:
    """A configuration of the project, on the sets beside this checkout."""
    return load_model(FieldsConfig, REPOSITORY / "configs" / name).model_copy(update={"root": REAL})


@pytest.fixture(scope="module")
def real_fields(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[AnnotatedField], PreparationReport]:
    out = tmp_path_factory.mktemp("real") / "fields.jsonl"
    report = prepare_index(configured("fields.yaml"), out)
    return list(read_fields(out)), report


@pytest.mark.skipif(not REAL.is_dir(), reason="the real smears (../shared/data) are not here")
def test_the_real_sets_are_prepared_without_a_leak(
    real_fields: tuple[list[AnnotatedField], PreparationReport],
) -> None:
    _, report = real_fields
    assert report.fields == {
        ("txl-pbc", "train"): 794,
        ("txl-pbc", "val"): 234,
        ("txl-pbc", "test"): 66,
        ("bccd", "train"): 100,
        ("bccd", "test"): 131,
        ("chula", "train"): 313,
        ("pbc", "train"): 2900,
        ("bionet", "train"): 1217,
        ("bionet", "val"): 156,
        ("sigtuple", "train"): 169,
    }
    assert {reason: len(files) for reason, files in report.left_out.items()} == {
        Reason.EXCLUDED: 263,
        Reason.DUPLICATE_PHOTO: 133,
        Reason.REPEATED: 16,
    }
    with (REAL / "fields.csv").open(newline="") as stream:
        held = {r["photo"] for r in csv.DictReader(stream) if r["split"] in ("val", "test")}
    fields, _ = real_fields
    assert not {f.photo for f in fields if f.split == "train"} & held
    first = next(f for f in fields if f.dataset == "bccd")
    assert first.boxes[0] == [260, 177, 491, 376] and first.labels[0] == "neutrophil"
    assert all(label for f in fields if f.dataset in ("chula", "pbc") for label in f.labels)


@pytest.mark.skipif(not REAL.is_dir(), reason="the real smears (../shared/data) are not here")
def test_the_real_cells_have_their_class_and_the_published_test_is_whole(
    real_fields: tuple[list[AnnotatedField], PreparationReport], tmp_path: Path
) -> None:
    report = prepare_index(configured("cells.yaml"), tmp_path / "cells.jsonl")
    fields = list(read_fields(tmp_path / "cells.jsonl"))
    annotated = Counter(f.dataset for f in fields if any(f.labels))
    assert (annotated["kaggle-wbc"], annotated["raabin"], annotated["tecom-wbc"]) == (2558, 1752, 300)
    assert (annotated["pbc"], annotated["chula"]) == (2900, 313)
    assert {label for f in fields for label in f.labels} - {"", *LEUKOCYTE_CLASSES} == {
        "erythroblast",
        "immature granulocyte",
    }
    assert set(report.left_out) == {Reason.EXCLUDED, Reason.DUPLICATE_PHOTO, Reason.REPEATED}
    copies = [f for f in fields if f.dataset == "kaggle-wbc"]
    assert {(f.lab, f.split) for f in copies} == {("bccd", "test")}
    # 70 photographs are known, and one name a class stands for the rest.
    assert len({f.photo for f in copies}) == 74
    assert not {f.photo for f in copies} & {f.photo for f in fields if f.split != "test"}

    # The sets that detection learns from are read as before, whichever stand beside them.
    boxed, _ = real_fields
    sets = {field.dataset for field in boxed} & {field.dataset for field in fields}
    assert len(sets) >= 4
    alone, beside = ([f for f in every if f.dataset in sets] for every in (boxed, fields))
    assert resolved(beside) == resolved(alone)
