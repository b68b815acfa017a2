"""Files, folders and patterns become images in one order, none twice, and no two results meet."""

from __future__ import annotations

import io
import os
import tempfile
import unicodedata
from pathlib import Path, PureWindowsPath

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from leukokit.images.inputs import IMAGE_SUFFIXES, FoundImages, find_images
from leukokit.images.places import LONGEST_NAME, common_folders
from leukokit.images.png import mark_as_drawn


def make(folder: Path, *names: str) -> list[Path]:
    paths = [folder / name for name in names]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return paths


def relatives(found: FoundImages) -> list[str]:
    return [image.relative.as_posix() for image in found.images]


def stems(found: FoundImages) -> list[str]:
    return [image.stem_path.as_posix() for image in found.images]


def test_file_is_found_under_its_folder(tmp_path: Path) -> None:
    (path,) = make(tmp_path, "slides/a.png")
    found = find_images([path])
    assert found.problems == ()
    assert [(image.path, image.root) for image in found.images] == [(path, path.parent)]
    assert relatives(found) == ["a.png"]
    assert stems(found) == ["a"]


def test_named_file_may_have_any_suffix_and_be_hidden(tmp_path: Path) -> None:
    paths = make(tmp_path, "a.img", ".b.png", "c")
    assert [image.path for image in find_images(paths).images] == paths


def test_folder_is_searched_sorted_without_hidden_and_other_files(tmp_path: Path) -> None:
    names = ["b.png", "a.JPG", "sub/deep/c.Tiff", "sub/a.webp"]
    make(tmp_path, *names, "notes.txt", "a.png.part", ".hidden.png", ".cache/d.png", "sub/.thumbs/e.png")
    found = find_images([str(tmp_path)])
    assert found.problems == ()
    assert relatives(found) == ["a.JPG", "b.png", "sub/a.webp", "sub/deep/c.Tiff"]
    assert {image.root for image in found.images} == {tmp_path}


def test_pictures_that_the_writer_png_made_are_skipped_unless_named(tmp_path: Path) -> None:
    drawn, _ = make(tmp_path, "leukokit-results/a.cells.png", "a.png")
    assert relatives(find_images([tmp_path])) == ["a.png"]
    assert relatives(find_images([tmp_path / "**" / "*.png"])) == ["a.png"]
    assert relatives(find_images([drawn])) == ["a.cells.png"]


def test_pattern_for_pictures_that_the_writer_png_made_finds_them(tmp_path: Path) -> None:
    make(tmp_path, "x/a.cells.png", "x/b.CELLS.png", "x/c.png")
    assert relatives(find_images([tmp_path / "**" / "*.cells.png"])) == ["x/a.cells.png"]
    assert relatives(find_images([tmp_path])) == ["x/c.png"]


def test_what_a_folder_holds_beside_images_is_counted(tmp_path: Path) -> None:
    make(
        tmp_path,
        *("a.png", "a.cells.png", "b.DCM", "sub/c.dcm", "sub/slide.svs", "README", "a.xyz", ".hidden.xyz"),
    )
    found = find_images([tmp_path])
    assert found.problems == ()
    assert found.note == (
        "images left out, of a format that is not read (export them as TIFF or PNG): 2 .dcm, 1 .svs; "
        "files skipped, which are not images by their names: 1 .cells.png, 1 .xyz, 1 without a suffix"
    )
    assert find_images([tmp_path, tmp_path / "sub"]).note == found.note
    assert find_images([tmp_path / "*.png"]).note == "" == find_images([tmp_path / "a.png"]).note


def test_hidden_folder_named_outright_is_searched(tmp_path: Path) -> None:
    make(tmp_path, ".scans/a.png")
    assert relatives(find_images([tmp_path / ".scans"])) == ["a.png"]


@pytest.mark.parametrize("suffix", sorted(IMAGE_SUFFIXES))
def test_every_known_suffix_is_found_in_a_folder(suffix: str, tmp_path: Path) -> None:
    make(tmp_path, "a" + suffix, "b" + suffix.upper())
    assert len(find_images([tmp_path]).images) == 2


def test_links_to_folders_are_followed_once_and_circles_end(tmp_path: Path) -> None:
    make(tmp_path, "data/real/a.png", "elsewhere/b.png")
    data = tmp_path / "data"
    (data / "linked").symlink_to(tmp_path / "elsewhere")
    (data / "real" / "up").symlink_to(data)
    (data / "real" / "self").symlink_to(data / "real")
    (data / "loop.png").symlink_to(data / "loop.png")
    (data / "broken.png").symlink_to(tmp_path / "nothing")
    found = find_images([data, tmp_path / "data" / "**" / "*.png"])
    assert relatives(found) == ["linked/b.png", "real/a.png"]
    # Of links that are called as images are, it is said, once, that they are none.
    assert sorted(problem.partition(":")[0] for problem in found.problems) == [
        str(data / name) for name in ("broken.png", "loop.png")
    ]
    assert all("link that leads to nothing" in problem for problem in found.problems)


def test_links_to_nothing_are_reported_where_they_may_have_been_meant(tmp_path: Path) -> None:
    make(tmp_path, "good.png", "notes.txt")
    for name in ("broken.png", "slide-7", "old.txt"):
        (tmp_path / name).symlink_to(tmp_path / "unmounted")
    problems = find_images([tmp_path]).problems
    assert [problem.partition(":")[0] for problem in problems] == [
        str(tmp_path / "broken.png"),
        str(tmp_path / "slide-7"),
    ]
    assert find_images([tmp_path / "goo*.png"]).problems == ()
    (problem,) = find_images([tmp_path / "absent*.png"]).problems
    assert "no image matches this pattern" in problem


def test_nothing_is_found_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "data/a.png", "data/sub/b.png")
    (tmp_path / "again").symlink_to(tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    found = find_images(
        ["data/sub/b.png", "data", "data/../data/a.png", "again", "data/*.png", tmp_path / "data"]
    )
    assert sorted(image.path.name for image in found.images) == ["a.png", "b.png"]
    assert found.images[0].path == Path("data/sub/b.png"), "the order is that of the arguments"
    assert found.problems == ()


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.png", ["a.png"]),
        ("*", ["a.png", "b.jpg", "one/c.png", "one/two/d.png"]),
        ("o*", ["one/c.png", "one/two/d.png"]),
        ("*/*.png", ["one/c.png"]),
        ("**/*.png", ["a.png", "one/c.png", "one/two/d.png"]),
        ("**", ["a.png", "b.jpg", "one/c.png", "one/two/d.png"]),
        ("**/two/*", ["one/two/d.png"]),
        ("one/**/[cd].png", ["c.png", "two/d.png"]),
        ("?.jpg", ["b.jpg"]),
    ],
)
def test_patterns(pattern: str, expected: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "a.png", "b.jpg", "notes.txt", "one/c.png", "one/two/d.png", ".hidden/e.png")
    monkeypatch.chdir(tmp_path)
    for argument in (pattern, str(tmp_path / pattern)):
        found = find_images([argument])
        assert relatives(found) == expected
        assert found.problems == ()


def test_file_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    paths = make(tmp_path, "a[1].png", "a1.png")
    assert [image.path for image in find_images([paths[0]]).images] == [paths[0]]


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="permissions are not POSIX's here")
def test_folder_that_may_not_be_entered_is_a_problem_only_where_it_matters() -> None:
    with tempfile.TemporaryDirectory() as name:  # not tmp_path, which is closed to all others as well
        folder = Path(name)
        folder.chmod(0o755)
        make(folder, "a.png", "closed/b.png")
        (folder / "closed").chmod(0)
        is_root = os.geteuid() == 0
        if is_root:  # root enters everything: be somebody else for a moment
            os.seteuid(65534)
        try:
            beside, everywhere = find_images([folder / "*.png"]), find_images([folder])
        finally:
            if is_root:
                os.seteuid(0)
            (folder / "closed").chmod(0o700)
    assert beside.problems == ()
    assert relatives(beside) == relatives(everywhere) == ["a.png"]
    assert len(everywhere.problems) == 1
    assert "closed: folder cannot be read (Permission denied)" in everywhere.problems[0]


def test_arguments_that_give_nothing_leave_the_others(tmp_path: Path) -> None:
    (image,) = make(tmp_path, "a.png")
    make(tmp_path, "empty/notes.txt")
    missing: list[str | Path] = [
        tmp_path / "none.png",
        tmp_path / "empty",
        tmp_path / "*.tif",
        tmp_path / "none" / "*.png",
        "",
    ]
    too_long = tmp_path / ("x" * 300)
    found = find_images(
        [*missing, image, image / "below.png", too_long, "a\0b", tmp_path / "line\nbreak.png"]
    )
    assert [found.path for found in found.images] == [image]
    expected = [
        "none.png: no such file or folder",
        "empty: folder without images",
        "*.tif: no image matches this pattern",
        "*.png: no image matches this pattern",
        "an empty name",
        "below.png: no such file or folder",
        "cannot be read",
        "a\\x00b: cannot be read",
        "line\\nbreak.png: no such file or folder",
    ]
    assert len(found.problems) == len(expected)
    for problem, words in zip(found.problems, expected, strict=True):
        assert words in problem
        assert "\n" not in problem
        assert ";" in problem, "a problem says what to do"


def test_several_roots_give_way_to_their_common_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(tmp_path, "a/x.png", "a/y.png", "b/x.png", "c/z.png")
    monkeypatch.chdir(tmp_path)
    found = find_images(["a/x.png", "a/y.png", "b/x.png", "c/z.png"])
    assert stems(found) == ["a/x", "a/y", "b/x", "c/z"]
    # Whether names are equal makes no difference: those of results do not depend on what else is there.
    assert stems(find_images(["a/y.png", "c/z.png"])) == ["a/y", "c/z"]
    assert stems(find_images(["a", "c"])) == ["a/x", "a/y", "c/z"]
    assert stems(find_images(["a/x.png", "a/y.png"])) == ["x", "y"]
    assert [image.path.as_posix() for image in found.images] == ["a/x.png", "a/y.png", "b/x.png", "c/z.png"]


def test_equal_names_below_two_folders(tmp_path: Path) -> None:
    make(tmp_path, "monday/slide/x.png", "tuesday/slide/x.jpg", "tuesday/slide/y.jpg")
    found = find_images([tmp_path / "monday", tmp_path / "tuesday"])
    assert stems(found) == ["monday/slide/x", "tuesday/slide/x", "tuesday/slide/y"]


def test_roots_that_rise_may_meet_a_third(tmp_path: Path) -> None:
    make(tmp_path, "p/a/x.png", "p/b/x.png", "q/a/x.png", "q/a/k.png")
    found = find_images([tmp_path / "p/a/x.png", tmp_path / "p/b/x.png", tmp_path / "q"])
    assert stems(found) == ["p/a/x", "p/b/x", "q/a/k", "q/a/x"]


def test_equal_stems_in_one_folder_keep_their_suffixes(tmp_path: Path) -> None:
    make(tmp_path, "x.jpg", "x.png", "x.png.jpg", "y.tar.png", "Z.png", "z.tif")
    found = find_images([tmp_path])
    by_name = {image.path.name: image.stem_path.as_posix() for image in found.images}
    assert by_name == {
        "x.jpg": "x.jpg",
        "x.png": "x.png",
        "x.png.jpg": "x.png.jpg",
        "y.tar.png": "y.tar",
        "Z.png": "Z.png",
        "z.tif": "z.tif",
    }


NAMES = st.sampled_from(["x.png", "x.jpg", "x.png.jpg", "x.png.jpg.bmp", "y.png", "x"])
FOLDERS = st.sampled_from(["", "a", "b", "a/b", "b/a", "a/x.png.d", "a/a/b"])


@settings(max_examples=80, deadline=None, database=None)
@given(
    files=st.lists(st.tuples(FOLDERS, NAMES), min_size=1, max_size=10, unique=True),
    picks=st.lists(st.tuples(st.booleans(), st.integers(0, 9)), min_size=1, max_size=8),
)
@example(
    files=[("a", "x.png"), ("a/b", "x.jpg"), ("", "x.png.jpg")], picks=[(False, 0), (True, 1), (True, 2)]
)
def test_no_two_images_share_a_place(files: list[tuple[str, str]], picks: list[tuple[bool, int]]) -> None:
    """Whatever is named, in whatever order: all of it is found, once, and every image has its own place."""
    with tempfile.TemporaryDirectory() as folder:
        paths = make(Path(folder), *(f"{parent}/{name}" if parent else name for parent, name in files))
        arguments: list[Path] = []
        for whole_folder, index in picks:
            path = paths[index % len(paths)]
            arguments.append(path.parent if whole_folder else path)
        found = find_images(arguments)
        images = [image.path for image in found.images]
        assert len(set(images)) == len(images)
        below = {
            path
            for path in paths
            for argument in arguments
            if path == argument or (argument in path.parents and path.suffix in IMAGE_SUFFIXES)
        }
        assert set(images) == below
        assert len({stem.casefold() for stem in stems(found)}) == len(images)
        assert len(set(relatives(found))) == len(images)
        for image in found.images:
            assert not image.relative.is_absolute()
            assert image.stem_path.parent == image.relative.parent
            assert image.root / image.relative == image.path
        assert find_images(arguments) == found


def test_an_image_called_as_a_file_over_all_images_keeps_its_suffix(tmp_path: Path) -> None:
    for name in ("run.png", "COCO.jpg", "other.png", "deep/run.png"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    stems = {image.stem_path.as_posix() for image in find_images([tmp_path]).images}
    assert stems == {"run.png", "COCO.jpg", "other", "deep/run"}


LEAVINGS = [
    "@eaDir/a.png/SYNOPHOTO_THUMB_XL.jpg",
    "#recycle/old.png",
    "$RECYCLE.BIN/S-1-5-21/$R1.png",
    ".Trash-1000/files/b.png",
    "lost+found/c.png",
    "__MACOSX/._a.png",
    "~snapshot/hourly.0/a.png",
]


def test_leavings_of_storage_devices_are_skipped_and_reported(tmp_path: Path) -> None:
    make(tmp_path, "a.png", "b.png", "._a.png", "~$b.png", "sub/@eaDir/d.jpg", *LEAVINGS)
    found = find_images([tmp_path])
    assert relatives(found) == ["a.png", "b.png"]
    assert dict(found.skipped_folders) == {
        "@eaDir": 2,
        **dict.fromkeys(
            ("#recycle", "$RECYCLE.BIN", ".Trash-1000", "lost+found", "__MACOSX", "~snapshot"), 1
        ),
    }
    (line,) = (note for note in found.notes if "folders of the system" in note)
    assert "2 @eaDir" in line
    assert relatives(find_images([tmp_path / "**" / "*.png"])) == ["a.png", "b.png"]
    assert relatives(find_images([tmp_path / "#recycle"])) == ["old.png"], "named outright"


def test_pictures_that_leukokit_drew_are_no_smears(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8)).save(stream, "PNG")
    (tmp_path / "smear.png").write_bytes(stream.getvalue())
    (tmp_path / "network.png").write_bytes(mark_as_drawn(stream.getvalue()))
    assert Image.open(tmp_path / "network.png").getpixel((0, 0)) == (0, 0, 0)
    found = find_images([tmp_path])
    assert relatives(found) == ["smear.png"]
    assert found.skipped == (("drawn by leukokit", 1),)
    assert relatives(find_images([tmp_path / "network.png"])) == ["network.png"]


def test_images_of_formats_that_are_not_read_stand_out(tmp_path: Path) -> None:
    make(tmp_path, "a.jfif", "b.JPE", "c.mpo", "d.heic", "e.HEIC", "f.svs", "notes.txt")
    found = find_images([tmp_path])
    assert relatives(found) == ["a.jfif", "b.JPE", "c.mpo"]
    assert found.unreadable == ((".heic", 2), (".svs", 1))
    assert "2 .heic, 1 .svs" in found.notes[0] and "notes" not in found.notes[0]


def test_one_file_reached_by_two_ways_is_found_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(tmp_path, "slides/x.jpg", "other/deep/y.jpg")
    (tmp_path / "slides" / "link").symlink_to(tmp_path / "other" / "deep")
    monkeypatch.chdir(tmp_path / "slides")
    found = find_images(["x.jpg", "../slides/x.jpg", "link/../deep/y.jpg"])
    assert len(found.images) == 2
    assert stems(found) == ["slides/x", "other/deep/y"]
    same = find_images(["x.jpg", "sub/../x.jpg"])
    assert len(same.images) == 1


def test_names_that_differ_in_case_or_unicode_form_have_results_apart(tmp_path: Path) -> None:
    names = ["A.JPG", "a.jpg", "stra\u00dfe.png", "STRASSE.png", "caf\u00e9.png", "cafe\u0301.png", "b.png"]
    make(tmp_path, *names)
    found = find_images([tmp_path])
    assert len(found.images) == len(names)
    folded = {unicodedata.normalize("NFC", stem).casefold() for stem in stems(found)}
    assert len(folded) == len(names)
    assert "b" in stems(found)
    one = {image.path.name: image.stem_path for image in found.images}
    other = {image.path.name: image.stem_path for image in find_images([tmp_path]).images}
    assert one == other


def test_names_too_long_for_a_suffix_are_shortened(tmp_path: Path) -> None:
    thai = "\u0e01" * 80
    make(tmp_path, f"{thai}1.png", f"{thai}2.png", "short.png")
    found = find_images([tmp_path])
    assert len(set(stems(found))) == 3
    assert all(len(name.encode()) <= LONGEST_NAME for name in stems(found))
    assert "short" in stems(found)
    assert {image.relative.name for image in found.images} == {f"{thai}1.png", f"{thai}2.png", "short.png"}


@pytest.mark.skipif(os.name != "posix", reason="file names are text here")
def test_names_that_are_not_utf_8(tmp_path: Path) -> None:
    name = os.fsdecode(b"slide-\xff\xfe.png")
    try:
        (tmp_path / name).write_bytes(b"x")
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    found = find_images([tmp_path])
    assert [image.path.name for image in found.images] == [name]
    assert stems(found) == [name.removesuffix(".png")]
    (problem,) = find_images([tmp_path / os.fsdecode(b"none-\xff.png")]).problems
    problem.encode("ascii")


def test_roots_on_two_drives_have_no_common_folder() -> None:
    roots = [PureWindowsPath(path) for path in ("C:/slides/a", "c:/slides/b", "D:/scans", "//nas/share/x")]
    assert [(common.as_posix().casefold(), drive) for common, drive in common_folders(roots).values()] == [
        ("c:/slides", "c"),
        ("c:/slides", "c"),
        ("d:/scans", "d"),
        ("//nas/share/x", "nas_share"),
    ]
