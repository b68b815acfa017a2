"""Commands and Python code in the pages: found, run, and their output compared.

A ``console`` block holds commands after ``$ `` and what they print. ``python tests/docs/consoles.py`` writes
the outputs of all pages anew.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from itertools import zip_longest
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from leukokit import cli
from leukokit.synthetic.smear import SyntheticSmear, draw_smear
from leukokit.taxonomy import ERYTHROCYTE, KINDS, LEUKOCYTE_CLASSES, PLATELET

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(console|python|yaml)\n(.*?)```", re.DOTALL)
VARYING = re.compile(r"[\d.]+( s)?$|\b\d+(\.\d+)? (s|MB)\b")
"""What differs from run to run: times, at the end of a line too, and memory."""


def pages() -> list[Path]:
    """All pages that hold a console block."""
    found = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    return [page for page in found if "```console\n" in page.read_text(encoding="utf-8")]


def run_page(page: Path, folder: Path) -> str:
    """The page with the outputs that its commands print now; they run in ``folder``, one after another."""
    for name in ("examples", "configs"):
        shutil.copytree(ROOT / name, folder / name)
    draw_smears(folder / "smears")
    annotate_smears(folder / "my-smears")
    known: dict[str, object] = {}
    with contextlib.chdir(folder):
        return BLOCK.sub(lambda block: _run_block(block, known), page.read_text(encoding="utf-8"))


def draw_smears(folder: Path) -> None:
    """Two slides of two drawn fields, which the pages call the reader's own."""
    for seed in range(1, 5):
        path = folder / f"slide-{(seed + 1) // 2}" / f"field-{seed}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(_drawn(seed).image).save(path)


def annotate_smears(folder: Path) -> None:
    """Ten drawn fields, their leukocytes and erythrocytes annotated in YOLO's form."""
    names = [*LEUKOCYTE_CLASSES, KINDS[ERYTHROCYTE]]
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    (folder / "data.yaml").write_text(f"names: {json.dumps(names)}\n", encoding="utf-8")
    for seed in range(10):
        drawn = _drawn(seed)
        Image.fromarray(drawn.image).save(folder / "images" / f"field-{seed}.png")
        size = np.array([drawn.image.shape[1], drawn.image.shape[0]])
        lines = [
            f"{names.index(label or kind)} "
            + " ".join(map(str, [*(box[:2] + box[2:]) / 2 / size, *(box[2:] - box[:2]) / size]))
            for box, kind, label in zip(drawn.boxes, drawn.kinds, drawn.labels, strict=True)
            if kind != KINDS[PLATELET]
        ]
        (folder / "labels" / f"field-{seed}.txt").write_text("\n".join(lines), encoding="utf-8")


def _drawn(seed: int) -> SyntheticSmear:
    return draw_smear(seed, 640, 480, 6, 40.0)


def _run_block(block: re.Match[str], known: dict[str, object]) -> str:
    language, text = block.groups()
    if language == "python":
        stdout = io.StringIO()
        with contextlib.redirect_stdout(stdout):
            exec(text, known)
        return _with_values(block[0], stdout.getvalue().splitlines())
    if language == "yaml":
        if name := re.match(r"# (\S+\.yaml)", text):
            Path(name[1]).write_text(text, encoding="utf-8")
        return block[0]
    answers = []
    for command, expected in _commands(text):
        printed = [line.rstrip() for line in _run(command.replace("\\\n", " ")).strip("\n").splitlines()]
        answers.append("\n".join([f"$ {command}", *_merged(expected, printed)]))
    return "```console\n" + "\n".join(answers) + "\n```"


def _with_values(block: str, printed: list[str]) -> str:
    """A block of Python, the values in comments behind ``print`` written anew."""
    values = iter(printed)
    lines = []
    for line in block.split("\n"):
        value = next(values, "") if line.startswith("print(") else ""
        # Not as a pattern: a value may hold backslashes.
        lines.append(re.sub(r"  # \{.*", "  # " + value.replace("\\", r"\\"), line))
    return "\n".join(lines)


def _commands(text: str) -> list[tuple[str, list[str]]]:
    """Commands of a block, continued lines kept, each with the lines that it is expected to print."""
    found = []
    for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
        lines, number = part.rstrip("\n").split("\n"), 1
        while lines[number - 1].endswith("\\"):
            number += 1
        found.append(("\n".join(lines[:number]), lines[number:]))
    return found


def _run(command: str) -> str:
    """What a command prints to stdout; ``leukokit`` runs in this process, anything else in a shell."""
    if not command.startswith("leukokit ") or "|" in command:
        return subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=True).stdout
    import shlex

    out, error = io.StringIO(), io.StringIO()
    with (
        mock.patch.dict(os.environ, {"COLUMNS": "88", "TERM": "dumb", "NO_COLOR": "1"}),
        mock.patch.object(sys, "argv", shlex.split(command)),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(error),
        contextlib.suppress(SystemExit),
    ):
        cli.main()
    if error.getvalue().startswith("error:"):
        raise AssertionError(f"{command}\n{error.getvalue()}")
    return out.getvalue()


def _merged(expected: list[str], printed: list[str]) -> list[str]:
    """The printed lines, cut at ``...`` as on the page, in the page's words where they say the same."""
    if "..." in expected:
        cut = expected.index("...")
        after = len(expected) - cut - 1
        head, tail = printed[:cut], printed[len(printed) - after :]
        return [*_merged(expected[:cut], head), "...", *_merged(expected[cut + 1 :], tail)]
    return [
        old if _says_the_same(old, new) else new
        for old, new in zip_longest(expected, printed)
        if new is not None
    ]


def _says_the_same(old: str | None, new: str) -> bool:
    """Whether two lines differ in nothing but times and the last digits of decimal numbers."""
    if old is None:
        return False
    parts, others = (re.split(r"(\d+\.\d+)", VARYING.sub("", line).rstrip()) for line in (old, new))
    return parts[::2] == others[::2] and all(
        abs(float(one) - float(other)) < 0.01 for one, other in zip(parts[1::2], others[1::2], strict=True)
    )


if __name__ == "__main__":
    for page in pages():
        with tempfile.TemporaryDirectory() as folder:
            page.write_text(run_page(page, Path(folder)), encoding="utf-8")
