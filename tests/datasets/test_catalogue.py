from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from leukokit.datasets.catalogue import PublicSet, SourceFile, find_set, load_catalogue, public_sets
from leukokit.errors import ConfigError, DataError


def test_every_public_set_says_whose_it_is_and_how_it_is_had() -> None:
    assert len({entry.name for entry in public_sets()}) == len(public_sets()) >= 7
    for entry in public_sets():
        assert entry.licence and entry.citation and entry.home.startswith("https://") and entry.labs
        assert bool(entry.files) != bool(entry.access)
        assert all(file.url.startswith("https://") and file.name.endswith(".zip") for file in entry.files)


def test_the_name_of_a_file_comes_from_its_address() -> None:
    assert SourceFile(url="https://example.org/a/smears%201.zip?x=1").name == "smears_1.zip"
    assert SourceFile(url="https://example.org/a.zip", name="b.zip").name == "b.zip"


@pytest.mark.parametrize(
    "wrong",
    [
        {"url": "file:///etc/passwd"},
        {"url": "https://example.org/"},
        {"url": "https://example.org/a.zip", "name": "../a.zip"},
        {"url": "https://example.org/a.zip", "sha256": "abc"},
    ],
)
def test_a_file_that_cannot_be_fetched_safely_is_refused(wrong: Any) -> None:
    with pytest.raises(ValidationError):
        SourceFile.model_validate(wrong)


def test_a_name_that_leaves_the_folder_is_refused() -> None:
    with pytest.raises(ValidationError):
        PublicSet(name="../evil", licence="x", home="x", access="x")


def test_own_sets_go_before_the_public_ones(tmp_path: Path) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(
        "sets:\n"
        "  - {name: bccd, licence: ours, home: here, access: ask}\n"
        f"  - {{name: mine, licence: CC0, home: here, "
        f"files: [{{url: 'http://h/a.zip', sha256: {'AB' * 32}}}]}}\n"
    )
    sets = load_catalogue(own)
    assert list(sets)[:2] == ["bccd", "mine"] and len(sets) == len(public_sets()) + 1
    assert sets["bccd"].licence == "ours" and sets["mine"].files[0].sha256 == "ab" * 32


@pytest.mark.parametrize(
    "text", ["", "sets: 3", "sets: [", "sets: [{name: a}]", "sets: [{name: a, home: h}]", "\0"]
)
def test_a_wrong_catalogue_is_one_line(tmp_path: Path, text: Any) -> None:
    own = tmp_path / "own.yaml"
    own.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load_catalogue(own)
    assert str(own) in str(raised.value) and "\n" not in str(raised.value)


def test_a_missing_catalogue_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none.yaml"):
        load_catalogue(tmp_path / "none.yaml")


def test_an_unknown_set_is_answered_with_the_nearest() -> None:
    with pytest.raises(DataError, match="'rabin'; there are raabin,"):
        find_set("rabin", load_catalogue())
