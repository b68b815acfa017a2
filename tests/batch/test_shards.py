"""Shards: disjoint, complete, and merged the same as one run over all."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from batches import arguments, damage, files, folder_of, rows, run, save, with_scripted_plugins
from hypothesis import given
from hypothesis import strategies as st

from leukokit.batch.shard import Shard
from leukokit.errors import ConfigError


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


@given(st.lists(st.text(min_size=1), unique=True, max_size=30), st.integers(1, 9))
def test_every_image_is_in_one_shard(names: list[str], of: int) -> None:
    shards = [Shard(number, of) for number in range(1, of + 1)]
    encodable = [n for n in names if "\0" not in n and not any(0xD800 <= ord(c) < 0xDC80 for c in n)]
    encodable = [n for n in encodable if not any(0xDD00 <= ord(c) < 0xE000 for c in n)]
    assert all(sum(shard.contains(Path(name)) for shard in shards) == 1 for name in encodable)


@pytest.mark.parametrize("text", ["", "1", "0/3", "4/3", "a/b", "1/0", "-1/3", "1/3/4"])
def test_what_is_no_shard_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="--shard"):
        Shard.parse(text)


def sharded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, of: int) -> tuple[Path, list[Path]]:
    root = folder_of(tmp_path / "in", 20)
    (root / "torn.png").write_bytes(b"no image")
    outs = []
    for number in range(1, of + 1):
        out = tmp_path / f"part-{number}"
        run(monkeypatch, arguments(root, out, "--shard", f"{number}/{of}"))
        outs.append(out)
    return root, outs


def test_merged_shards_are_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, outs = sharded(monkeypatch, tmp_path, 3)
    assert run(monkeypatch, arguments(root, tmp_path / "whole", "--group-by", "folder")) == 3
    merged = tmp_path / "merged"
    command = ["batch", "merge", *map(str, outs), "--out", str(merged), "--group-by", "folder"]
    assert run(monkeypatch, command) == 3
    assert files(merged) == files(tmp_path / "whole")
    parts = [len(rows(out / "counts.csv")) for out in outs]
    assert sum(parts) == 21 and all(parts)
    document = json.loads((merged / "run.json").read_text())
    assert [part["folder"] for part in document["merged"]] == [str(out) for out in outs]
    assert len(document["image_sha256"]) == 20
    # The whole goes on from there.
    save(root / "slide-1" / "new.png", 2)
    assert run(monkeypatch, arguments(root, merged)) == 3
    assert len(rows(merged / "counts.csv")) == 22


def test_a_shard_that_lacks_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, outs = sharded(monkeypatch, tmp_path, 3)
    assert run(monkeypatch, ["batch", "merge", str(outs[0]), str(outs[2]), "--out", str(tmp_path / "m")]) == 3
    said = "shard 2 of 3 is not among them: the counts are not complete"
    assert said in capsys.readouterr().err
    assert said in (tmp_path / "m" / "report.html").read_text()
    assert json.loads((tmp_path / "m" / "run.json").read_text())["attention"][0] == said


def test_a_target_of_shards_wants_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    run(monkeypatch, [*arguments(folder_of(tmp_path / "in", 2), out), "--classifier", "none"])
    assert run(monkeypatch, ["batch", "merge", str(out), "--out", str(tmp_path / "m"), "--target", "9"]) == 2
    assert "--target 9" in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_images_that_wait_are_in_the_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _, outs = sharded(monkeypatch, tmp_path, 2)
    with closing(sqlite3.connect(outs[1] / "manifest.sqlite")) as base, base:
        # As if the second had been stopped before its last images.
        base.execute("DELETE FROM images WHERE name IN (SELECT name FROM plan ORDER BY place LIMIT 4)")
    merged = tmp_path / "m"
    assert run(monkeypatch, ["batch", "merge", *map(str, outs), "--out", str(merged)]) == 3
    waiting = sum(row["status"] == "waiting" for row in rows(merged / "counts.csv"))
    assert waiting == 4
    report = (merged / "report.html").read_text()
    assert "<strong>4</strong>waiting" in report
    assert "4 images are not processed yet" in report


def test_what_does_not_belong_together_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root, outs = sharded(monkeypatch, tmp_path, 2)
    other, merged = tmp_path / "other", tmp_path / "merged"
    run(monkeypatch, arguments(root, other, "--shard", "2/2", "--set", "detector.size=7"))
    capsys.readouterr()
    cases = [
        ([outs[0], other], "detector.params.size: 9.0 is now 7.0"),
        ([outs[0], outs[0]], "is in another batch"),
        ([outs[0], tmp_path / "in"], "holds no batch"),
    ]
    for folders, said in cases:
        assert run(monkeypatch, ["batch", "merge", *map(str, folders), "--out", str(merged)]) == 2
        assert said in capsys.readouterr().err
    assert run(monkeypatch, ["batch", "merge", *map(str, outs), "--out", str(outs[1]), "--restart"]) == 2
    assert "is one of the batches to merge" in capsys.readouterr().err
    # What was refused does not stand in the way of what is right.
    assert run(monkeypatch, ["batch", "merge", *map(str, outs), "--out", str(merged)]) == 3
    assert len(rows(merged / "counts.csv")) == 21


def test_a_damaged_shard_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    _, outs = sharded(monkeypatch, tmp_path, 2)
    # Its settings can still be read.
    damage(outs[1], pages=3)
    capsys.readouterr()
    assert run(monkeypatch, ["batch", "merge", *map(str, outs), "--out", str(tmp_path / "m")]) == 1
    said = capsys.readouterr().err
    assert f"{outs[1]}/manifest.sqlite: is damaged" in said and "--restart" in said


def test_shards_of_which_every_image_failed_are_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "torn.png").write_bytes(b"no image")
    outs = [tmp_path / f"part-{number}" for number in (1, 2)]
    codes = [
        run(monkeypatch, arguments(tmp_path / "in", out, "--shard", f"{number}/2"))
        for number, out in enumerate(outs, 1)
    ]
    assert sorted(codes) == [0, 1]
    assert run(monkeypatch, ["batch", "merge", *map(str, outs), "--out", str(tmp_path / "m")]) == 1


def test_a_shard_without_an_image_is_one_of_the_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    root = folder_of(tmp_path / "in", 2)
    outs = [tmp_path / f"part-{number}" for number in range(1, 5)]
    for number, out in enumerate(outs, 1):
        assert run(monkeypatch, arguments(root, out, "--shard", f"{number}/4")) == 0
    assert "none of the 2 images is in it" in capsys.readouterr().err
    assert sum(rows(out / "counts.csv") == [] for out in outs) >= 2
    assert run(monkeypatch, ["batch", "merge", *map(str, outs), "--out", str(tmp_path / "m")]) == 0
    assert len(rows(tmp_path / "m" / "counts.csv")) == 2
    attention = json.loads((tmp_path / "m" / "run.json").read_text())["attention"]
    assert not any("shard" in line for line in attention)
    # Where nothing at all is found, there is nothing to share out.
    (tmp_path / "empty").mkdir()
    assert run(monkeypatch, arguments(tmp_path / "empty", tmp_path / "e", "--shard", "1/4")) == 1
    assert not (tmp_path / "e").exists()
