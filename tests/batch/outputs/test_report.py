"""The report of a batch: what it says, what it leaves out, and that nothing in it can do harm."""

from __future__ import annotations

import base64
import io
import os
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from browser import PROGRAMS, Browser, column, open_quietly
from PIL import Image

from leukokit.batch.outputs.report import MAX_FAILURES, MAX_GROUPS, write_report
from leukokit.batch.outputs.totals import GroupCounts, Totals
from leukokit.batch.processing import GALLERY
from leukokit.batch.records import Entry, Thumbnail
from leukokit.taxonomy import LEUKOCYTE_CLASSES, UNCLASSIFIED

HOSTILE = [
    "<script>window.pwned=1</script>.png",
    "\"><img src=x onerror='window.pwned=1'>.png",
    "' onload='window.pwned=1' a='.png",
    "two\nlines\r\0\u202egnp.png",
    "=cmd()|' /C calc'!A0.png",
    "{{ 7 * 7 }}{% raw %}</style></title></textarea><!--.png",
    os.fsdecode(b"caf\xe9.png"),
    "https://example.org/beacon.png",
]
VOID = {"meta", "link", "img", "br", "hr", "input", "wbr"}


class Page(HTMLParser):
    """The elements of a page, its text and the rows of its tables; an element left open fails the test."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.rows: dict[str, list[list[str]]] = {}
        self.words: list[str] = []
        self._open: list[str] = []
        self._section = ""
        self.feed(path.read_bytes().decode("utf-8"))
        self.close()
        assert not self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
        if tag == "section":
            self._section = dict(attrs)["id"] or ""
        if tag == "tr":
            self.rows.setdefault(self._section, []).append([])
        if tag in {"td", "th"}:
            self.rows[self._section][-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] == "script":
            self.scripts.append(data)
            return
        if self._open and self._open[-1] == "style":
            return
        self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[self._section][-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def jpeg(shade: int = 120) -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (8, 8), (shade, 60, 140)).save(stream, "JPEG")
    return stream.getvalue()


def group(*counts: int, images: int = 4, failed: int = 0, unclassified: int = 0) -> GroupCounts:
    classes = Counter(dict(zip(LEUKOCYTE_CLASSES, counts, strict=True))) if counts else Counter[str]()
    if counts:
        classes[UNCLASSIFIED] = unclassified
    kinds = Counter({"leukocyte": sum(classes.values()), "erythrocyte": 1234, "platelet": 7})
    return GroupCounts(classes, kinds, images, failed)


def run_of(**more: Any) -> dict[str, Any]:
    classifier = {"name": "cnn", "params": {"views": 4, "review_threshold": None}, "sha256": "c0ffee"}
    return {
        "use": "Research use only; not a medical device.",
        "command": "leukokit batch slides --out out",
        "finished": "2026-03-04T05:06:07+00:00",
        "attention": [],
        "review_threshold": 0.9095,
        "seconds_of_last_run": 1.5,
        "seconds_over_images": 2.5,
        "provenance": {"leukokit": "0.1.0", "device": "cpu", "standardize": True, "classifier": classifier},
        **more,
    }


def thumbnail(name: str, label: str, probability: float, cell: int = 0) -> Thumbnail:
    return Thumbnail(Path(name), cell, label, probability, jpeg())


def example() -> tuple[Totals, list[Thumbnail], list[Entry]]:
    groups = {
        "slide-2": group(10, 5, 0, 1, 0),
        "slide-10": group(9, 40, 2, 0, 1, unclassified=3),
        "slide-1": group(100, 50, 10, 5, 2, images=5, failed=2),
        "slide-0": group(images=2, failed=2),
    }
    totals = Totals(group(119, 95, 12, 6, 3, images=15, failed=4, unclassified=3), groups, 2.5)
    cells = [
        thumbnail("b.png", "neutrophil", 0.9),
        thumbnail("a.png", "neutrophil", 0.7),
        thumbnail("c.png", UNCLASSIFIED, 0.41, cell=12),
    ]
    return totals, cells, [Entry(Path("broken.png"), None, "broken.png: is truncated; make it again")]


def test_the_numbers_are_those_of_the_batch(tmp_path: Path) -> None:
    totals, cells, failures = example()
    path = write_report(tmp_path, totals, cells, failures, run_of(), 400)
    page = Page(path)
    assert path == tmp_path / "report.html"
    for said in (
        "Blood cells of 15 images",
        "2026-03-04 05:06 UTC",
        "Research use only; not a medical device.",
        "11 images done",
        "1,234 erythrocytes",
        "235 leukocytes classified",
        "4 of 4 groups need more classified leukocytes for the target of 400",
        "How far to trust the classes",
        "Here 1% of the leukocytes have no class",
        "c0ffee",
        "below 90.95% a cell is unclassified",
    ):
        assert said in page.text
    assert "Its intervals are wide" not in page.text
    differential = page.rows["differential"]
    assert [row[:4] for row in differential[1:3]] == [
        ["neutrophil", "119", "50.6", "44.1 to 57.2"],
        ["lymphocyte", "95", "40.4", "34.1 to 47.0"],
    ]
    head, *rows, whole = page.rows["groups"]
    assert head == [
        *("group", "images", "failed", "leukocytes", "classified", "still needed"),
        *(f"{name} %" for name in LEUKOCYTE_CLASSES),
        "unclassified",
    ]
    assert [row[0] for row in rows] == ["slide-0", "slide-1", "slide-10", "slide-2"]
    assert rows[2][:7] == ["slide-10", "4", "0", "55", "52few", "348", "17.38.2 to 30.3"]
    assert rows[2][-1] == "3"
    assert rows[0] == ["slide-0", "2", "2", "0", "0few", "400", *"\N{EN DASH}" * 5, "0"]
    assert whole[:5] == ["all images", "15", "4", "238", "235"]
    assert page.rows["failures"][1:] == [["broken.png", "broken.png: is truncated; make it again"]]


def test_bars_and_whiskers_share_one_axis(tmp_path: Path) -> None:
    totals, cells, failures = example()
    page = Page(write_report(tmp_path, totals, cells, failures, run_of()))
    bars = [bar for bar in page.all("rect") if bar.get("class") == "share"]
    # 50.6% with limits 44.1 to 57.2, on an axis that ends at 60%.
    assert bars[0]["width"] == "84.40%"
    assert bars[0]["fill"] == "#5500FF"
    whisker = next(line for line in page.all("line") if line.get("class") != "grid")
    assert (whisker["x1"], whisker["x2"]) == ("73.43%", "95.33%")


def test_the_least_certain_come_first(tmp_path: Path) -> None:
    totals, cells, failures = example()
    page = Page(write_report(tmp_path, totals, cells, failures, run_of()))
    pictures = page.all("img")
    assert [picture["alt"] for picture in pictures] == [
        "unclassified, 41.0%",
        "neutrophil, 70.0%",
        "neutrophil, 90.0%",
    ]
    assert {picture["loading"] for picture in pictures} == {"lazy"}
    assert pictures[0]["src"] == "data:image/jpeg;base64," + base64.b64encode(jpeg()).decode()
    assert "41.0% cell 12 c.png" in page.text
    assert "neutrophil 2 of 119" in page.text


def test_a_large_batch_is_cut_and_the_page_says_so(tmp_path: Path) -> None:
    totals = Totals(group(40_000, 9000, 900, 90, 9, images=10_000, failed=700))
    totals.groups = {f"slide-{n:05}": group(4, 1, 0, 0, 0) for n in range(MAX_GROUPS + 5)}
    cells = [thumbnail(f"{n}.png", "neutrophil", 1 - n / 100) for n in range(GALLERY + 9)]
    failures = (Entry(Path(f"{n}.png"), None, "damaged") for n in range(700))
    path = write_report(tmp_path, totals, cells, failures, run_of())
    page = Page(path)
    assert len(page.rows["groups"]) == MAX_GROUPS + 2
    assert len(page.rows["failures"]) == MAX_FAILURES + 1
    assert len(page.all("img")) == GALLERY
    # The most certain are those that are left out.
    assert page.all("img")[0]["alt"] == "neutrophil, 68.0%"
    assert f"The first 1,000 of {MAX_GROUPS + 5:,} groups, by name; all are in differential.csv" in page.text
    assert "The first 500 of 700 failed images; all are in failures.csv" in page.text
    assert f"At most {GALLERY} of each class are shown" in page.text
    assert path.stat().st_size < 2_000_000


@pytest.mark.parametrize("classifier", [None, {"name": "cnn"}])
def test_a_batch_without_classes(tmp_path: Path, classifier: dict[str, str] | None) -> None:
    run = run_of(provenance={"classifier": classifier})
    page = Page(write_report(tmp_path, Totals(group(images=1), {"a": group()}), [], [], run, 100))
    said = "No image was counted" if classifier else "No classifier was used"
    assert said in page.text
    assert {"differential", "gallery"}.isdisjoint(page.rows)
    assert page.rows["groups"][0] == ["group", "images", "failed", "leukocytes"]


def test_more_than_a_reader_takes_in_is_counted(tmp_path: Path) -> None:
    lines = [f"gone-{number}.png: link that leads to nothing; check it" for number in range(500)]
    page = Page(write_report(tmp_path, *example(), run_of(attention=lines)))
    assert page.text.count("leads to nothing") == 20
    assert "And 480 more, see attention in run.json" in page.text


def test_few_leukocytes_are_a_warning(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, Totals(group(50, 49, 0, 0, 0)), [], [], run_of(), 99))
    assert "n = 99: a differential count needs 100 classified leukocytes or more" in page.text
    assert "The target of 99 classified leukocytes is reached" in page.text


def hostile(tmp_path: Path) -> Path:
    """A report in which every text that a batch can bring is a hostile one."""
    totals = Totals(group(9, 9, 9, 9, 9, failed=1))
    totals.groups = {name: group(1, 2, 3, 4, 5) for name in HOSTILE}
    for label in HOSTILE:
        totals.whole.classes[label] = 3
    cells = [thumbnail(name, label, 0.5) for name, label in zip(HOSTILE, reversed(HOSTILE), strict=True)]
    failures = [Entry(Path(name), None, name) for name in HOSTILE]
    settings = {name: {name: [name], "params": {}} for name in HOSTILE}
    run = run_of(command=" ".join(HOSTILE), provenance={**settings, "device": HOSTILE[0]})
    return write_report(tmp_path, totals, cells, failures, run, 300)


def test_hostile_text_is_text(tmp_path: Path) -> None:
    path = hostile(tmp_path)
    page = Page(path)
    assert len(page.scripts) == len(page.all("script")) == len(page.all("style")) == 1
    assert page.all("title") == [{}]
    assert len(page.all("img")) == len(HOSTILE)
    assert len(page.rows["groups"]) == len(HOSTILE) + 2
    for tag, attributes in page.elements:
        for name, value in attributes.items():
            assert not name.startswith("on") and name not in {"style", "srcset", "action", "a"}
            if name in {"src", "href"}:
                assert re.match(r"data:|#", str(value)), (tag, value)
    # Names are whole, on one line, and as the CSV files have them.
    names = [row[0] for row in page.rows["failures"][1:]]
    assert names[0] == HOSTILE[0]
    assert names[3] == r"two\nlines\r\x00\u202egnp.png"
    assert names[4] == "'" + HOSTILE[4]
    assert names[5] == HOSTILE[5]
    assert names[6] == r"caf\udce9.png"


def test_the_policy_allows_the_page_alone(tmp_path: Path) -> None:
    import hashlib

    page = Page(hostile(tmp_path))
    policy = next(meta["content"] for meta in page.all("meta") if "http-equiv" in meta)
    assert policy is not None
    rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
    digest = base64.b64encode(hashlib.sha256(page.scripts[0].encode()).digest()).decode()
    assert rules["default-src"] == "'none'"
    assert rules["img-src"] == "data:"
    assert rules["script-src"] == f"'sha256-{digest}'"
    assert "unsafe" not in policy


def test_the_same_batch_makes_the_same_page(tmp_path: Path) -> None:
    totals, cells, failures = example()
    first = write_report(tmp_path, totals, cells, failures, run_of()).read_bytes()
    again = write_report(tmp_path, totals, cells[::-1], iter(failures), run_of()).read_bytes()
    assert first == again


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, PROGRAMS)), None)
    if program is None:
        pytest.skip("no Chromium here; on Debian: apt-get install chromium-headless-shell")
    browser = Browser(program, tmp_path_factory.mktemp("chromium") / "profile")
    yield browser
    browser.close()


def test_tables_sort_in_a_browser(tmp_path: Path, chromium: Browser) -> None:
    totals, cells, failures = example()
    open_quietly(chromium, write_report(tmp_path, totals, cells, failures, run_of(), 400))
    buttons = "document.querySelectorAll('#groups th button')"
    chromium.evaluate(f"{buttons}[0].click()")
    assert column(chromium, "groups", 0) == ["slide-0", "slide-1", "slide-2", "slide-10"]
    # By keyboard: numbers as numbers, and what has none last both ways.
    chromium.evaluate(f"{buttons}[6].focus()")
    orders = []
    for _ in range(2):
        chromium.press("Enter", 13, "\r")
        orders.append(column(chromium, "groups", 6))
    assert orders == [["17.3", "59.9", "62.5", "\N{EN DASH}"], ["62.5", "59.9", "17.3", "\N{EN DASH}"]]
    sorted_by = "[...document.querySelectorAll('th[aria-sort]')].map((h) => [h.textContent, h.ariaSort])"
    assert chromium.evaluate(sorted_by) == [["neutrophil %", "descending"]]
    assert chromium.evaluate("document.querySelector('#groups tfoot th').textContent") == "all images"
    chromium.evaluate("document.querySelectorAll('#differential th button')[1].click()")
    assert column(chromium, "differential", 1) == ["3", "6", "12", "95", "119"]


def test_hostile_text_does_nothing_in_a_browser(tmp_path: Path, chromium: Browser) -> None:
    open_quietly(chromium, hostile(tmp_path))
    assert chromium.evaluate("window.pwned === undefined")
    names = "[...document.querySelectorAll('#failures tbody th')].map((name) => name.textContent)"
    assert chromium.evaluate(names)[0] == HOSTILE[0]
    chromium.evaluate("for (const button of document.querySelectorAll('th button')) button.click()")
    assert not chromium.named("Runtime.exceptionThrown")


def test_the_policy_stops_a_script_in_a_browser(tmp_path: Path, chromium: Browser) -> None:
    totals, cells, failures = example()
    path = write_report(tmp_path, totals, cells, failures, run_of())
    injected = "<script>window.pwned = 1</script><img src='https://127.0.0.1:9/x.png'></body>"
    path.write_text(path.read_text(encoding="utf-8").replace("</body>", injected), encoding="utf-8")
    chromium.events.clear()
    chromium.open(path)
    assert chromium.evaluate("window.pwned === undefined")
    assert chromium.evaluate("document.querySelectorAll('th button').length > 0")
    said = [event["entry"]["text"] for event in chromium.named("Log.entryAdded")]
    assert any("script" in text for text in said) and any("image" in text for text in said)


def test_what_is_needed_of_one_slide_is_said_of_it(tmp_path: Path) -> None:
    page = Page(write_report(tmp_path, Totals(group(50, 40, 0, 0, 0)), [], [], run_of(), 200))
    assert (
        "110 classified leukocytes are still needed for the target of 200, about 5 more images" in page.text
    )


def test_a_failed_slide_has_bounds_and_no_percentages(tmp_path: Path) -> None:
    failed, good = group(0, 0, 0, 0, 2, unclassified=11), group(60, 30, 0, 0, 0, unclassified=2)
    totals = Totals(group(60, 30, 0, 0, 2, unclassified=13), {"failed": failed, "good": good})
    tests = [
        {"title": "known <lab>", "cells": 95, "coverage": 0.95, "accuracy_of_classified": 1.0},
        {"title": "an unseen laboratory", "cells": 323, "coverage": 0.594, "accuracy_of_classified": 0.927},
        {"title": "without figures"},
    ]
    page = Page(write_report(tmp_path, totals, [], [], run_of(classifier_tests=tests)))
    rows = {row[0]: row for row in page.rows["groups"]}
    assert rows["failed"][5:10][-1] == "\N{EN DASH}between 15.4 and 100.0"
    assert rows["good"][5] == "66.755.9 to 76.3"
    assert page.rows["trust"][1:] == [
        ["known <lab>", "95", "5.0%", "0.0%"],
        ["an unseen laboratory", "323", "40.6%", "7.3%"],
    ]
    assert "Here 12% of the leukocytes have no class" in page.text
    page = Page(write_report(tmp_path, Totals(failed), [], [], run_of()))
    assert "11 of 13 leukocytes have no class: percentages are withheld" in page.text
    assert "Here 85% of the leukocytes have no class, as is usual in laboratories" in page.text
    assert page.rows["differential"][5][1:4] == ["2", "\N{EN DASH}", "15.4 to 100.0"]
