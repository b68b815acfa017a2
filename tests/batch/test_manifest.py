"""The manifest: what it keeps of an image, which images are done, and what is said of a damaged one."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest
from batches import arguments, damage, folder_of, rows, run, save, with_scripted_plugins

from leukokit.batch.manifest import Manifest
from leukokit.batch.processing import GALLERY
from leukokit.batch.records import Record, stamp_of
from leukokit.batch.scheduler import Scheduler
from leukokit.cells import Cells
from leukokit.config import PipelineConfig
from leukokit.errors import OutputError
from leukokit.images.inputs import find_images
from leukokit.pipeline import Pipeline
from leukokit.smear import Smear


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


def scripted_pipeline() -> Pipeline:
    chosen = {"detector": "scripted", "classifier": "turns", "standardize": False}
    return Pipeline.from_config(PipelineConfig.model_validate(chosen), "cpu")


def test_an_image_written_anew_while_it_is_looked_at_is_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, pipeline = find_images([folder_of(tmp_path / "in", 3)]).images, scripted_pipeline()
    detect, midway = pipeline.detector.detect, found[1].path

    def rewriting(smears: Sequence[Smear]) -> list[Cells]:
        if smears[0].path == midway:
            save(midway, 20)
            os.utime(midway, ns=(1, 1))
        return detect(smears)

    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan(enumerate(found))
        with monkeypatch.context() as patch:
            patch.setattr(pipeline.detector, "detect", rewriting)
            Scheduler([pipeline], manifest).run(found)
        assert [manifest.is_done(image) for image in found] == [True, False, True]
        Scheduler([pipeline], manifest).run(found)
        assert all(manifest.is_done(image) for image in found)
        _, second, _ = manifest.entries()
    assert second.document is not None and second.document["counts"]["leukocyte"] == 20


def test_of_an_image_are_kept_as_many_leukocytes_as_a_gallery_shows(tmp_path: Path) -> None:
    # The classes in turn, the first cell uncertain.
    found = find_images([save(tmp_path / "crowd.png", 6 * GALLERY, 0)]).images
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan(enumerate(found))
        Scheduler([scripted_pipeline()], manifest).run(found)
        kept = [each.label for each in manifest.thumbnails(10**6)]
    counts = {label: kept.count(label) for label in set(kept)}
    assert len(counts) == 6 and counts.pop("unclassified") == 1
    assert set(counts.values()) == {GALLERY}


def test_the_gallery_is_that_of_a_batch_that_was_not_stopped(tmp_path: Path) -> None:
    # Of each image the only leukocyte is uncertain, so that their names decide which are shown.
    files = [save(tmp_path / "in" / f"f{number:02}.png", 1) for number in range(GALLERY + 2)]
    found, galleries = find_images([tmp_path / "in"]).images, []
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan(enumerate(found))
        for _ in range(2):
            Scheduler([scripted_pipeline()], manifest).run(found)
        # Those that were shown make room for those that were not.
        for file in files[:2]:
            save(file, 0)
        Scheduler([scripted_pipeline()], manifest).run(found)
        galleries.append(list(manifest.thumbnails(GALLERY)))
    with Manifest(tmp_path / "whole", {}) as manifest:
        manifest.plan(enumerate(found))
        Scheduler([scripted_pipeline()], manifest).run(found)
        galleries.append(list(manifest.thumbnails(GALLERY)))
    assert galleries[0] == galleries[1]
    assert [each.name.name for each in galleries[0]] == [file.name for file in files[2:]]


def test_a_damaged_manifest_is_called_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 8), tmp_path / "out"
    for spoil in (damage, lambda out: (out / "manifest.sqlite").write_bytes(b"no manifest" * 900)):
        assert run(monkeypatch, arguments(root, out, "--restart")) == 0
        spoil(out)
        capsys.readouterr()
        assert run(monkeypatch, arguments(root, out)) == 1
        said = capsys.readouterr().err
        assert "manifest.sqlite: is damaged" in said and "--restart" in said and "free space" not in said
    assert run(monkeypatch, arguments(root, out, "--restart")) == 0
    assert len(rows(out / "counts.csv")) == 8


def test_damage_is_found_wherever_it_is_read(tmp_path: Path) -> None:
    (image,) = find_images([folder_of(tmp_path / "in", 1)]).images
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan([(0, image)])
        manifest.record([Record(image, stamp_of(image.path), "", b"not packed")])
        with pytest.raises(OutputError, match="is damaged"):
            list(manifest.entries())
    (tmp_path / "lock").mkdir()
    (tmp_path / "lock" / "manifest.lock").write_bytes(b"no lock" * 1000)
    with pytest.raises(OutputError, match=r"manifest\.lock: is damaged .*; delete it"):
        Manifest(tmp_path / "lock", {})


@pytest.mark.parametrize("read", ["is_done", "entries", "facts", "thumbnails", "plan"])
def test_reads_of_a_damaged_manifest_are_told(tmp_path: Path, read: str) -> None:
    (image,) = find_images([folder_of(tmp_path / "in", 1)]).images
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest._base.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        damage(tmp_path / "out")
        manifest._base.execute("PRAGMA shrink_memory")
        reads: dict[str, Callable[[], object]] = {
            "is_done": lambda: manifest.is_done(image),
            "entries": lambda: list(manifest.entries()),
            "facts": manifest.facts,
            "thumbnails": lambda: list(manifest.thumbnails(1)),
            "plan": lambda: manifest.plan([(0, image)]),
        }
        with pytest.raises(OutputError, match="is damaged"):
            reads[read]()
