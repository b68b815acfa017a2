"""Attacks leukokit by the hundred and counts what becomes of it.

    python benchmarks/stress.py                       # all kinds, about ten minutes on two cores
    python benchmarks/stress.py images plugins --seed 7

Of each kind the table says how many cases were tried; how many ended in results or in one clear line, with
the rest done; and, to be 0 everywhere, hangs, tracebacks, and results that are wrong without a word.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

NASTY: Final = Path(__file__).resolve().parent.parent / "tests" / "batch" / "nasty.py"
PLAIN: Final = ("--classifier", "none", "--device", "cpu")
UNPRINTABLE: Final = re.compile(rb"[\x00-\x08\x0b-\x1f\x7f]")


@dataclass(slots=True)
class Tally:
    """What became of the cases of a kind; ``problems`` says which went wrong."""

    tried: int = 0
    done: int = 0
    clear: int = 0
    hangs: int = 0
    tracebacks: int = 0
    wrong: int = 0
    problems: list[str] = field(default_factory=list)

    def row(self, name: str) -> str:
        """Return a line of the table."""
        figures = (self.tried, self.done, self.clear, self.hangs, self.tracebacks, self.wrong)
        return f"{name:<10}" + "".join(f"{figure:>14,}" for figure in figures)


@dataclass(frozen=True, slots=True)
class Ended:
    """A command that ended; ``code`` is None where it did not in time."""

    code: int | None
    out: bytes
    err: bytes


def main() -> None:
    """Run the kinds asked for, print the table, and end with 1 where something went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("kinds", nargs="*", choices=[*KINDS, []], help=f"of {', '.join(KINDS)}; default all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--cases", type=int, default=100, help="cases per kind, about")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    tallies: dict[str, Tally] = {}
    for kind in arguments.kinds or KINDS:
        started = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"stress-{kind}-") as folder:
            tally = tallies[kind] = Tally()
            KINDS[kind](tally, Path(folder), random.Random(arguments.seed), arguments.cases)
        print(f"{kind}: {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        for problem in tally.problems[:20]:
            print(f"  {problem}", file=sys.stderr, flush=True)
    print(f"{'kind':<10}" + "".join(f"{title:>14}" for title in FIGURES))
    for kind, tally in tallies.items():
        print(tally.row(kind))
    if arguments.json:
        figures = {kind: {name: getattr(tally, name) for name in FIGURES} for kind, tally in tallies.items()}
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")
    sys.exit(any(tally.hangs or tally.tracebacks or tally.wrong for tally in tallies.values()))


FIGURES: Final = ("tried", "done", "clear", "hangs", "tracebacks", "wrong")


def run(arguments: Sequence[object], seconds: float, folder: Path | None = None) -> Ended:
    """Run leukokit, and end it with whatever it started where it takes too long."""
    command = [sys.executable, "-m", "leukokit", *map(str, arguments)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, cwd=folder
    ) as process:
        try:
            out, err = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            out, err = process.communicate()
            return Ended(None, out, err)
    return Ended(process.returncode, out, err)


def judge(tally: Tally, name: str, ended: Ended) -> bool:
    """Count a hang or a traceback; whether there was neither."""
    if ended.code is None:
        tally.hangs += 1
        tally.problems.append(f"{name}: hangs")
    elif b"Traceback" in ended.err or b"unexpected" in ended.err or ended.code < 0:
        tally.tracebacks += 1
        tally.problems.append(f"{name}: code {ended.code}, {ended.err[-300:]!r}")
    else:
        return True
    return False


def table(path: Path) -> dict[str, dict[str, str]]:
    """Return a table of a batch by image; empty where it was not written."""
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as stream:
        return {row["image"]: row for row in csv.DictReader(stream)}


def field_of_view(seed: int, size: tuple[int, int] = (480, 360), leukocytes: int = 3) -> Image.Image:
    """Return a drawn field of view."""
    from leukokit.synthetic.smear import draw_smear

    return Image.fromarray(draw_smear(seed, *size, leukocytes, erythrocyte_diameter_px=30.0).image)


# Images


def damage_images(tally: Tally, folder: Path, rng: random.Random, cases: int) -> None:
    """Damaged files beside whole ones: a damaged one fails, or is counted as the whole one is."""
    root, out = folder / "in", folder / "out"
    root.mkdir()
    whole = field_of_view(1)
    whole.save(root / "whole.png")
    names = []
    for number in range(cases):
        how, content = DAMAGES[number % len(DAMAGES)](whole, rng)
        names.append(f"{number:03}-{how}")
        (root / names[-1]).write_bytes(content)
        if number % 4 == 0:
            whole.save(root / f"{number:03}-good.png")
    tally.tried += len(names)
    ended = run(["batch", root, "--out", out, *PLAIN], 30 + 3 * cases)
    if not judge(tally, "damaged images", ended):
        return
    counts, causes = table(out / "counts.csv"), table(out / "failures.csv")
    expected = {kind: counts["whole.png"][kind] for kind in ("leukocyte", "erythrocyte")}
    for name in names:
        row = counts.get(name)
        if row is None:
            fault(tally, f"{name}: has no row")
        elif row["status"] == "failed":
            tally.clear += bool(causes.get(name, {}).get("cause"))
        elif {kind: row[kind] for kind in expected} == expected or row["notes"]:
            tally.done += 1
        else:
            fault(tally, f"{name}: counted as { {kind: row[kind] for kind in expected} }, not {expected}")
    for name, row in counts.items():
        if "good" in name and {kind: row[kind] for kind in expected} != expected:
            fault(tally, f"{name}: a whole image is counted as {row}")


def fault(tally: Tally, text: str) -> None:
    """Count a result that is wrong without a word."""
    tally.wrong += 1
    tally.problems.append(text)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytearray:
    """Return an image as a file's bytes."""
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return bytearray(stream.getvalue())


def cut_and_closed(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a JPEG cut anywhere and closed with an end marker."""
    content = encoded(image, "JPEG", quality=92)
    return "cut.jpg", bytes(content[: rng.randrange(len(content) // 4, len(content) - 2000)]) + b"\xff\xd9"


def cut(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a file cut anywhere."""
    kind, suffix = rng.choice([("PNG", "png"), ("TIFF", "tif"), ("BMP", "bmp"), ("WEBP", "webp")])
    content = encoded(image, kind)
    return f"cut.{suffix}", bytes(content[: rng.randrange(64, len(content) * 9 // 10)])


def zeroed_sector(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a file with 4 KB of zeros."""
    # WebP has no checksum: what is wrong within its pixels, nobody can tell.
    kind, suffix = rng.choice([("JPEG", "jpg"), ("PNG", "png")])
    content = encoded(image, kind)
    start = rng.randrange(1024, max(len(content) - 4096, 1025))
    content[start : start + 4096] = bytes(len(content[start : start + 4096]))
    return f"sector.{suffix}", bytes(content)


def doubled_height(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a JPEG whose header says twice its rows."""
    content = encoded(image, "JPEG", quality=92)
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 2] = (2 * image.height + rng.randrange(9)).to_bytes(2, "big")
    return "doubled.jpg", bytes(content)


def wrong_checksum(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a PNG with one bit wrong in its pixels."""
    content = encoded(image, "PNG")
    content[content.index(b"IDAT") + rng.randrange(5000, 50_000)] ^= 1 << rng.randrange(8)
    return "checksum.png", bytes(content)


def flipped(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a file with bytes of its header changed."""
    kind, suffix = rng.choice([("TIFF", "tif"), ("BMP", "bmp"), ("PNG", "png")])
    content = encoded(image, kind)
    for _ in range(rng.randrange(1, 12)):
        content[rng.randrange(min(len(content), 200))] = rng.randrange(256)
    return f"header.{suffix}", bytes(content)


def lying_bitmap(image: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return a bitmap of a few bytes that claims thousands of rows."""
    content = encoded(image.resize((4, 4)), "BMP")
    content[18:26] = b"".join(rng.choice([19_000, 40_000, 2**31 - 1]).to_bytes(4, "little") for _ in range(2))
    return "lying.bmp", bytes(content)


def no_image(_: Image.Image, rng: random.Random) -> tuple[str, bytes]:
    """Return bytes that begin as an image does, or none."""
    head = rng.choice([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"II*\0", b"BM", b"RIFF\0\0\0\0WEBP"])
    return "none.png", head + rng.randbytes(rng.randrange(500))


DAMAGES: Final = (
    *(cut_and_closed, cut, zeroed_sector, doubled_height),
    *(wrong_checksum, flipped, lying_bitmap, no_image),
)


# Names


def hostile_names(tally: Tally, folder: Path, rng: random.Random, cases: int) -> None:
    """Names that break terminals, tables, pages and file systems: every image has its row and its files."""
    root, out = folder / "in", folder / "out [/red]\x1b[31m"
    image = encoded(field_of_view(2, (200, 160), 1), "PNG")
    made = []
    for number in range(cases):
        path = root / hostile_name(number, rng)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as stream:
                stream.write(image)
        except (OSError, ValueError):
            continue
        made.append(path)
    tally.tried += len(made)
    writers = "json,png,yolo,geojson"
    ended = run(["batch", root, "--out", out, *PLAIN, "--save", writers, "--group-by", "folder"], 60 + cases)
    if not judge(tally, "names", ended):
        return
    if UNPRINTABLE.search(ended.out + ended.err):
        fault(tally, f"names: escapes reach the terminal: {UNPRINTABLE.search(ended.out + ended.err)}")
    rows = table(out / "counts.csv")
    tally.clear += sum(row["status"] == "failed" for row in rows.values())
    tally.done += sum(row["status"] == "done" for row in rows.values())
    if len(rows) != len(made):
        fault(tally, f"names: {len(made)} images, {len(rows)} rows")
    if any(name.startswith(("=", "+", "-", "@")) for name in rows):
        fault(tally, "names: a formula in a table")
    page = (out / "report.html").read_text(encoding="utf-8") if (out / "report.html").exists() else ""
    if "<script>alert" in page:
        fault(tally, "names: markup in the report")
    documents = [path for path in out.rglob("*.json") if path.is_file()]
    if len(documents) - 1 != sum(row["status"] == "done" for row in rows.values()):
        fault(tally, f"names: {len(documents) - 1} documents of {len(made)} images")


def hostile_name(number: int, rng: random.Random) -> str:
    """Return a name, with a folder or without."""
    stems = [
        *("=cmd()|'A0", "-1+1", "@x", "a\x1b]0;title\x07", "<script>alert(1)<\\script>", "[red]x[/red]"),
        *("{{ 7 * 7 }}", "a\nb", "a\rb", "\u202egnp", "caf\udce9", "\udcff\udcfe", "x" * 240, "\u0e19" * 80),
        *("run", "REPORT", "counts", "manifest.sqlite", "classes", "CON", "a:b", "a b", " ", "x..", "NA"),
        *("stra\u00dfe", "STRASSE", "A", "a", "\u00e9", "e\u0301", "'", '"', ";", ",", "%s", "~", "$HOME"),
    ]
    folders = ["", "[/bold]/", "NA/", "null/", "=f/", "b\x1b[2J/", "\udcfc/", "run.json/", "a.json/"]
    return f"{rng.choice(folders)}{stems[number % len(stems)]}{rng.choice(['.png', '.PNG', '.png.png'])}"


# Plugins


def hostile_plugins(tally: Tally, folder: Path, rng: random.Random, cases: int) -> None:
    """Plugins that hang, crash or leave, and what they return: each costs its image at most."""
    sys.path.insert(0, str(NASTY.parent))
    from nasty import DEEDS

    root, out = folder / "in", folder / "out"
    root.mkdir()
    deeds = [DEEDS[number % len(DEEDS)] for number in range(max(cases // 4, len(DEEDS)))]
    rng.shuffle(deeds)
    for number, deed in enumerate(deeds):
        for name, blue in (
            (f"{number:03}-{deed}.png", DEEDS.index(deed)),
            (f"{number:03}-{deed}-then.png", 0),
        ):
            pixels = np.full((40, 50, 3), (200, 180, 190), np.uint8)
            pixels[0, 0] = number % 200, 0, blue
            Image.fromarray(pixels).save(root / name)
    tally.tried += len(deeds)
    command = [
        "batch",
        root,
        "--out",
        out,
        *PLAIN,
        "--detector",
        "nasty",
        "--plugin",
        NASTY,
        "--save",
        "nasty",
    ]
    ended = run(
        [*command, "--set", "time_limit=2", "--set", "standardize=false"], 120 + 30 * len(deeds), folder
    )
    if not judge(tally, "plugins", ended):
        return
    harmless = {"none", "chdir", "print"}
    for name, row in table(out / "counts.csv").items():
        deed = name[4:-4]
        failed = row["status"] == "failed"
        if deed.endswith("-then") or deed in harmless:
            if failed:
                fault(tally, f"{name}: fails, though nothing was done to it")
            tally.done += not deed.endswith("-then") and not failed
        elif failed:
            tally.clear += 1
        else:
            fault(tally, f"{name}: done, though {deed} was done to it")
    if len(table(out / "counts.csv")) != 2 * len(deeds):
        fault(tally, "plugins: images without a row")


# Kills


def kills(tally: Tally, folder: Path, rng: random.Random, cases: int) -> None:
    """A batch that is killed over and over ends with the tables of one that was not."""
    root, number = folder / "in", max(cases // 4, 5)
    root.mkdir()
    image = field_of_view(3, (200, 160), 1)
    for place in range(120):
        image.putpixel((0, 0), (place, 0, 0))
        image.save(root / f"f{place:03}.png")
    command = ["batch", root, *PLAIN, "--save", "json"]
    expected = run([*command, "--out", folder / "whole"], 300)
    if not judge(tally, "kills", expected):
        return
    out = folder / "out"
    for _ in range(number):
        tally.tried += 1
        process = subprocess.Popen(
            [sys.executable, "-m", "leukokit", *map(str, [*command, "--out", out])],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        try:
            process.wait(rng.uniform(1.0, 4.0))
        except subprocess.TimeoutExpired:
            process.send_signal(rng.choice([signal.SIGKILL, signal.SIGTERM, signal.SIGINT]))
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            tally.hangs += 1
        if rng.random() < 0.2:
            # As after a power cut.
            for path in rng.sample(sorted(out.glob("f*.json")), min(2, len(list(out.glob("f*.json"))))):
                path.write_bytes(b"")
        if rng.random() < 0.2:
            shutil.rmtree(out, ignore_errors=True)
    ended = run([*command, "--out", out], 300)
    if not judge(tally, "kills", ended):
        return
    same = without_times(out) == without_times(folder / "whole")
    if ended.code or not same:
        fault(
            tally, f"kills: code {ended.code}, tables {'agree' if same else 'differ'}, {ended.err[-300:]!r}"
        )
    else:
        tally.done += number


def without_times(out: Path) -> dict[str, Any]:
    """Return the rows and documents of a batch without what no two runs share."""
    rows = {name: {**row, "seconds": ""} for name, row in table(out / "counts.csv").items()}
    documents = {
        path.name: json.loads(path.read_text()) | {"seconds": 0, "provenance": 0}
        for path in out.glob("f*.json")
    }
    return {"rows": rows, "documents": documents}


# Settings


def hostile_settings(tally: Tally, folder: Path, rng: random.Random, cases: int) -> None:
    """Options and files of settings that nobody means: one clear line each."""
    root = folder / "in"
    root.mkdir()
    field_of_view(4, (200, 160), 1).save(root / "a.png")
    for number, (arguments, content) in enumerate(settings_of(rng, cases)):
        tally.tried += 1
        if content is not None:
            (folder / "c.yaml").write_bytes(content)
        command = ["batch", root, "--out", folder / f"out-{number}", *PLAIN, *arguments]
        ended = run(command, 60, folder)
        if not judge(tally, f"{arguments} {content!r}"[:200], ended):
            continue
        lines = [line for line in ended.err.splitlines() if line.startswith((b"error:", b"Error"))]
        is_box = b"\xe2\x95\xad" in ended.err or b"Usage" in ended.err
        if ended.code == 0:
            tally.done += 1
        elif lines or is_box:
            tally.clear += 1
        else:
            fault(tally, f"{arguments}: code {ended.code} without a word, {ended.err[-200:]!r}")


def settings_of(rng: random.Random, most: int) -> Iterator[tuple[list[str], bytes | None]]:
    """Yield options, and the content of a configuration file where they name one."""
    options = [
        *(["--group-by", rule] for rule in ("(", "a{99999999999}", "(a|a)*$", "(.*)*x", "[", "\\", "(?P<")),
        *(["--set", f"time_limit={value}"] for value in (".inf", ".nan", "-1", "1e999", "x", "[]", "{}")),
        *(
            ["--set", f"detector.confidence={value}"]
            for value in (".nan", "2", "-1", "1e400", "null", "!!x y")
        ),
        *(["--set", text] for text in ("", "=", "a", "a=b", "detector=", "detector.x.y=1", "graph.k=1e9")),
        *(["--shard", text] for text in ("", "0/1", "2/1", "a", "1/0", "-1/2", "9999999/9999999")),
        *(["--save", text] for text in (",,,", "coco", "x", "png;json", "\x1b[31m")),
        *(["--detector", text] for text in ("", "x\x1b[31m", "[red]", "../x", "yolo ")),
        *(["--log", text] for text in ("/dev/full", "/", "/proc/x/y")),
        *(["--plugin", text] for text in ("/dev/null", "/", "missing.py", "/dev/zero")),
        *(["--workers", text] for text in ("0", "-1", "x")),
        *(["--device", text] for text in ("tpu", "cuda:99", ",", "cpu,cpu")),
        ["--target", "0"],
    ]
    yaml = [
        b"a: &a [1]\n" + b"".join(b"b%d: &b%d [*a, *a]\n" % (n, n) for n in range(9)),
        b"a0: &a0 x\n"
        + b"".join(b"a%d: &a%d [%s]\n" % (n, n, b", ".join([b"*a%d" % (n - 1)] * 9)) for n in range(1, 9)),
        b"[" * 5000,
        b"{a: " * 3000,
        b"\xff\xfe\x00",
        b"detector: !!python/object/apply:os.system ['true']\n",
        b"detector:\n  name: yolo\n  trust_pickle: true\n",
        b"a: &a {b: *a}\n",
        b"- 1\n",
        b"detector: 2001-99-99\n",
        b"time_limit: .inf\n",
        b"x" * 3_000_000,
    ]
    cases: list[tuple[list[str], bytes | None]] = [(option, None) for option in options]
    cases += [(["--config", "c.yaml"], content) for content in yaml]
    cases += [(["--config", place], None) for place in ("/dev/zero", "/", "missing.yaml", "/dev/null")]
    rng.shuffle(cases)
    yield from cases[:most]


# Cards


def hostile_cards(tally: Tally, folder: Path, rng: random.Random, cases: int) -> None:
    """Cards and weights that were tampered with: refused by their name, never 0 cells without a word."""
    from leukokit import weights
    from leukokit.config import PipelineConfig
    from leukokit.errors import LeukokitError
    from leukokit.pipeline import Pipeline

    field = folder / "a.png"
    field_of_view(5, (320, 240), 1).save(field)
    for number in range(cases):
        tally.tried += 1
        kind, name = rng.choice([("detector", "smear-yolo11n"), ("classifier", "leukocyte-cnn")])
        place = folder / f"w{number}"
        place.mkdir()
        source = Path(str(weights.find(name)))
        for suffix in (".safetensors", ".json", ".onnx"):
            if source.with_suffix(suffix).exists():
                shutil.copy(source.with_suffix(suffix), place)
        what = tamper(place / f"{name}.json", rng)
        choice = {
            "name": "yolo" if kind == "detector" else "cnn",
            "weights": str(place / f"{name}.safetensors"),
        }
        settings: Mapping[str, Any] = {"classifier": None, kind: choice}
        try:
            result = Pipeline.from_config(PipelineConfig.model_validate(settings), "cpu").run(field)
        except LeukokitError as error:
            if "\n" in str(error):
                fault(tally, f"{what}: more than one line")
            tally.clear += 1
        except Exception as error:
            tally.tracebacks += 1
            tally.problems.append(f"{what}: {type(error).__name__}: {error}"[:300])
        else:
            if len(result.cells):
                tally.done += 1
            else:
                fault(tally, f"{what}: no cells, and no word")
        shutil.rmtree(place)


def tamper(card: Path, rng: random.Random) -> str:
    """Change one value of a card; returns what was done."""
    document = json.loads(card.read_text())
    key = rng.choice(list(document))
    value: Any = rng.choice(
        [
            0,
            -5,
            1e9,
            1e-9,
            1e30,
            float("nan"),
            float("inf"),
            None,
            "",
            "=cmd()",
            [],
            {},
            ["a", "a"],
            True,
            "x" * 10**6,
        ]
    )
    document[key] = value
    card.write_text(json.dumps(document))
    return f"{card.name}: {key} = {str(value)[:40]!r}"


KINDS: Final[dict[str, Callable[[Tally, Path, random.Random, int], None]]] = {
    "images": damage_images,
    "names": hostile_names,
    "plugins": hostile_plugins,
    "kills": kills,
    "settings": hostile_settings,
    "cards": hostile_cards,
}


if __name__ == "__main__":
    main()
