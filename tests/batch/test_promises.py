"""What a batch promises: a row for every input, every saved file, and nothing of others replaced."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from batches import arguments, files, folder_of, rows, run, save, with_scripted_plugins

from leukokit.batch import batch_status, merge_shards, recount, run_batch
from leukokit.batch.job import BatchOptions
from leukokit.batch.manifest import Manifest
from leukokit.batch.records import Record
from leukokit.config import PipelineConfig
from leukokit.errors import ConfigError, ImageError, OutputError
from leukokit.registry import classifiers

CONFIG = PipelineConfig.model_validate({"detector": "scripted", "classifier": "turns", "standardize": False})
HERE = BatchOptions(save="json", device="cpu", processes=0)


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


def test_a_batch_from_python(tmp_path: Path) -> None:
    root, out, progress = folder_of(tmp_path / "in", 7), tmp_path / "out", list[Any]()
    save(root / "blue.png", 1, action="fail")
    summary = run_batch(root, out, CONFIG, HERE, group_by="folder", target=10, on_progress=progress.append)
    assert (summary.whole.images, summary.whole.done, summary.whole.failed) == (8, 7, 1)
    assert not summary.is_complete and not summary.is_failure and summary.out == out
    assert [name.as_posix() for name, _ in summary.failures] == ["blue.png"]
    assert set(summary.groups) == {".", "slide-0", "slide-1", "slide-2"}
    assert summary.differential is not None and summary.differential.n > 0
    assert all(path.is_file() for path in summary.files)
    assert progress[0].total == 8 and progress[0].image is None
    assert progress[-1].done == 7 and progress[-1].failed == 1 and len(progress) == 9
    status = batch_status(out)
    assert (status.images, status.done, status.failed, status.waiting) == (8, 7, 1, 0)
    assert "told to fail" in status.failures[0][1]
    with pytest.raises(ImageError, match="no such file"):
        run_batch(tmp_path / "nowhere", out, CONFIG, HERE)


def test_shards_merge_from_python_where_they_cannot_be_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, parts = folder_of(tmp_path / "in", 9), [tmp_path / "a", tmp_path / "b"]
    for number, part in enumerate(parts, 1):
        run_batch(root, part, CONFIG, BatchOptions(**{**vars_of(HERE), "shard": f"{number}/2"}))
        (part / "manifest.lock").unlink()
    monkeypatch.setattr(os, "access", lambda path, mode: not str(path).startswith(tuple(map(str, parts))))
    summary = merge_shards(parts, tmp_path / "whole")
    assert summary.is_complete and summary.whole.done == 9
    assert not any((part / "manifest.lock").exists() for part in parts)
    run_batch(root, tmp_path / "once", CONFIG, HERE)
    assert files(tmp_path / "whole") == files(tmp_path / "once")


def vars_of(options: BatchOptions) -> dict[str, Any]:
    return {name: getattr(options, name) for name in BatchOptions.__slots__}


def test_images_added_between_shards_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, parts = folder_of(tmp_path / "in", 15), [tmp_path / "a", tmp_path / "b"]
    assert run(monkeypatch, arguments(root, parts[0], "--shard", "1/2")) == 0
    for number in range(7):
        save(root / f"added{number}.png", 1)
    assert run(monkeypatch, arguments(root, parts[1], "--shard", "2/2")) == 0
    merge = ["batch", "merge", *map(str, parts), "--out", str(tmp_path / "whole")]
    assert run(monkeypatch, merge) == 3
    (said, *_) = json.loads((tmp_path / "whole" / "run.json").read_text())["attention"]
    assert str(parts[0]) in said and "15 images" in said and "22" in said
    assert run(monkeypatch, arguments(root, parts[0], "--shard", "1/2")) == 0
    assert run(monkeypatch, [*merge, "--restart"]) == 0
    assert len(rows(tmp_path / "whole" / "counts.csv")) == 22


def test_a_merge_that_is_refused_keeps_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"
    run_batch(root, out, CONFIG, HERE)
    run_batch(root, tmp_path / "other", CONFIG, HERE)
    before = files(out)
    with pytest.raises(ConfigError, match="is in another batch"):
        merge_shards([tmp_path / "other", tmp_path / "other"], out, restart=True)
    assert files(out) == before and batch_status(out).done == 6
    assert not list(out.glob("*.before-merge"))


@pytest.mark.parametrize("how", ["removed", "emptied"])
def test_saved_files_that_are_gone_are_saved_again(tmp_path: Path, how: str) -> None:
    root, out = folder_of(tmp_path / "in", 4), tmp_path / "out"
    run_batch(root, out, CONFIG, HERE)
    whole, lost = files(out), out / "slide-1" / "f001.json"
    # As after a power cut on a disk that wrote the manifest first.
    lost.unlink() if how == "removed" else lost.write_bytes(b"")
    done = list[Any]()
    assert run_batch(root, out, CONFIG, HERE, on_progress=done.append).is_complete
    assert [each.image.name for each in done[1:]] == ["f001.png"] and files(out) == whole


def test_files_that_vanish_while_a_batch_runs_are_missed(tmp_path: Path) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"

    def vandal(progress: Any) -> None:
        if progress.done == 3:
            shutil.rmtree(out / "slide-0")

    summary = run_batch(root, out, CONFIG, HERE, on_progress=vandal)
    assert (
        not summary.is_complete
        and "saved files are missing or changed: slide-0/f000.json" in summary.problems[0]
    )
    assert run_batch(root, out, CONFIG, HERE).is_complete


def test_a_manifest_that_vanishes_while_a_batch_runs_is_missed(tmp_path: Path) -> None:
    root, out = folder_of(tmp_path / "in", 6), tmp_path / "out"

    def vandal(progress: Any) -> None:
        if progress.done == 3:
            for path in out.glob("manifest.sqlite*"):
                path.unlink()

    with pytest.raises(OutputError, match="was removed while the batch ran"):
        run_batch(root, out, CONFIG, HERE, on_progress=vandal)
    assert not (out / "counts.csv").exists()


def test_files_reach_the_disk_before_the_manifest_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out, order = folder_of(tmp_path / "in", 3), tmp_path / "out", list[str]()
    flush, replace = os.fsync, Manifest._replace

    def flushed(descriptor: int) -> None:
        flush(descriptor)
        order.append(Path(f"/proc/self/fd/{descriptor}").resolve().name)

    def recorded(self: Manifest, record: Record) -> set[bytes]:
        order.append(record.image.path.name)
        return replace(self, record)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(Manifest, "_replace", recorded)
    run_batch(root, out, CONFIG, HERE)
    for number in range(3):
        file, folder = f"f00{number}.json", f"slide-{number}"
        assert order.index(file) < order.index(f"f00{number}.png") > order.index(folder)


def test_what_others_wrote_is_not_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path / "in", 3)
    mine = {root / "slide-0" / "f000.json": "of labelme", root / "manifest.sqlite.old": "a backup"}
    for path, text in mine.items():
        path.write_text(text)
    for more in ((), ("--restart",), ()):
        assert run(monkeypatch, arguments(root, root, *more)) == 3
        assert {path: path.read_text() for path in mine} == mine
        (failure,) = rows(root / "failures.csv")
        assert "f000.json: exists, and leukokit did not write it" in failure["cause"]
        assert "--overwrite" in failure["cause"]
    assert (root / "slide-1" / "f001.json").exists()
    assert run(monkeypatch, arguments(root, root, "--overwrite")) == 0
    assert json.loads((root / "slide-0" / "f000.json").read_text())["counts"]["leukocyte"] == 0


def test_another_programs_database_is_not_touched(tmp_path: Path) -> None:
    root, out = folder_of(tmp_path / "in", 1), tmp_path / "out"
    out.mkdir()
    (out / "manifest.sqlite").write_text("of another program")
    for restart in (False, True):
        with pytest.raises(OutputError, match="is not the manifest of a batch"):
            run_batch(root, out, CONFIG, BatchOptions(**{**vars_of(HERE), "restart": restart}))
    assert (out / "manifest.sqlite").read_text() == "of another program"


def test_a_manifest_that_is_no_file_is_said(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "in", 1)
    makers: tuple[Callable[[Path], None], ...] = (Path.mkdir, os.mkfifo)
    for number, make in enumerate(makers):
        for name in ("manifest.sqlite", "manifest.lock"):
            out = tmp_path / f"out-{number}-{name}"
            out.mkdir()
            make(out / name)
            with pytest.raises(OutputError, match="choose another --out") as error:
                run_batch(root, out, CONFIG, HERE)
            assert "free space" not in str(error.value)


def test_files_are_called_as_a_fresh_run_calls_them(tmp_path: Path) -> None:
    root, out = tmp_path / "in", tmp_path / "out"
    save(root / "x.png", 1)
    run_batch(root, out, CONFIG, HERE)
    assert (out / "x.json").exists()
    added = save(root / "x.bmp", 2)
    run_batch(root, out, CONFIG, HERE)
    assert {path.name for path in out.glob("x*")} == {"x.png.json", "x.bmp.json"}
    added.unlink()
    run_batch(root, out, CONFIG, HERE)
    # Those of an image that is left out stay.
    assert {path.name for path in out.glob("x*")} == {"x.json", "x.bmp.json"}


def test_a_batch_that_is_stopped_leaves_no_tables_of_an_earlier_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, out = folder_of(tmp_path / "in", 3), tmp_path / "out"
    run_batch(root, out, CONFIG, HERE)
    save(root / "more.png", 1)

    def interrupted(self: object, smears: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("leukokit.pipeline.Pipeline.process", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_batch(root, out, CONFIG, HERE)
    assert not (out / "counts.csv").exists() and not (out / "report.html").exists()
    assert batch_status(out).waiting == 1


def test_files_left_out_are_in_the_record(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out, log = tmp_path / "in", tmp_path / "out", tmp_path / "batch.log"
    save(root / "a.png", 6)
    (root / "x.heic").write_bytes(b"heic")
    assert run(monkeypatch, arguments(root, out, "--log", str(log), "--quiet")) == 0
    (said,) = json.loads((out / "run.json").read_text())["attention"]
    assert "1 .heic" in said and said in log.read_text() and said in (out / "report.html").read_text()


def test_two_images_of_one_name_stay_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, other = tmp_path / "in", tmp_path / "other" / "deep"
    save(root / "x.png", 1)
    save(other.parent / "x.png", 2)
    other.mkdir()
    (root / "link").symlink_to(other)
    monkeypatch.chdir(root)
    assert run(monkeypatch, arguments(Path("x.png"), tmp_path / "out", "link/../x.png")) == 0
    assert [row["leukocyte"] for row in rows(tmp_path / "out" / "counts.csv")] == ["1", "2"]


def test_a_path_that_is_too_long_costs_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = folder_of(tmp_path / "in", 2)
    long = "/".join(["x" * 200] * 31) + ".png"
    assert run(monkeypatch, [*arguments(root, tmp_path / "out"), long]) == 3
    assert len(rows(tmp_path / "out" / "counts.csv")) == 2


def test_recounting_writes_what_a_run_at_that_threshold_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, out = folder_of(tmp_path / "in", 12), tmp_path / "out"
    run_batch(root, out, CONFIG, HERE)
    original = files(out)
    recount_at = ["batch", "recount", str(out), "--group-by", "folder", "--set"]
    for threshold in (0.3, 0.6, 1):
        monkeypatch.setattr(classifiers.get("turns"), "review_threshold", threshold)
        run_batch(root, tmp_path / f"at-{threshold}", CONFIG, HERE, group_by="folder")
        monkeypatch.undo()
        assert run(monkeypatch, [*recount_at, f"classifier.review_threshold={threshold}"]) == 0
        again, fresh = files(out), files(tmp_path / f"at-{threshold}")
        for name in ("counts.csv", "cells.csv", "differential.csv"):
            assert again[name] == fresh[name]
        document = json.loads((out / "run.json").read_text())
        assert (
            document["review_threshold"] == threshold and "the batch ran at 0.5" in document["attention"][0]
        )
    assert "unclassified" in (out / "report.html").read_text()
    assert run(monkeypatch, [*recount_at, "detector.confidence=0.2"]) == 2
    assert "only classifier.review_threshold" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="from 0 to 1"):
        recount(out, review_threshold=1.5)
    run_batch(root, out, CONFIG, HERE)
    assert files(out) == original


def test_recounting_wants_a_classifier(tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"classifier": None})
    out = run_batch(folder_of(tmp_path / "in", 1), tmp_path / "out", config, HERE).out
    assert recount(out, group_by="folder").groups
    with pytest.raises(ConfigError, match="without a classifier"):
        recount(out, review_threshold=0.5)


def test_excel_is_told_the_encoding_where_that_is_wanted(tmp_path: Path) -> None:
    root, out = folder_of(tmp_path / "in", 2), tmp_path / "out"
    save(root / "\u00e4.png", 1)
    mark = "\ufeff".encode()
    run_batch(root, out, CONFIG, HERE, bom=True)
    tables = sorted(out.glob("*.csv"))
    assert len(tables) == 4 and all(path.read_bytes().startswith(mark) for path in tables)
    recount(out)
    assert not any(mark in path.read_bytes() for path in tables)
