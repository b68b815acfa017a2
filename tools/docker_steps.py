"""Run the steps of the Dockerfile without docker, in a folder and with an interpreter of your choice.

    python tools/docker_steps.py --bin .venv/bin --build-arg UV_TORCH_BACKEND= -- detect smear.png

A temporary folder stands for the image's root: COPY copies below it, and absolute paths that COPY and WORKDIR
name are replaced in later steps. RUN runs in a shell with ``--bin`` first on its PATH. Then the entry point
runs once, in WORKDIR, with the arguments behind ``--``. Only the instructions of the Dockerfile are known.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

SOURCE = Path(__file__).resolve().parents[1]


def read_instructions(text: str) -> Iterator[tuple[str, str]]:
    """Yield the instructions of a Dockerfile with their arguments; comments are left out, lines joined."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    for line in "\n".join(lines).replace("\\\n", " ").splitlines():
        name, _, rest = line.partition(" ")
        yield name.upper(), rest.strip()


class Image:
    """A folder that stands for the image, and the environment that its steps build up."""

    def __init__(self, root: Path, programs: Path, build_args: dict[str, str]) -> None:
        self.root = root
        self.build_args = build_args
        self.environment = {**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}"}
        self.folder = root
        self.entry_point: list[str] = []
        self.folders: set[str] = set()

    def run(self, name: str, rest: str) -> None:
        """Run one instruction.

        Raises:
            SystemExit: the instruction is not known here.
            subprocess.CalledProcessError: a RUN step failed.
        """
        step = getattr(self, f"_{name.lower()}", None)
        if step is None:
            raise SystemExit(f"Dockerfile: {name} is not known to {Path(__file__).name}")
        step(rest)

    def _from(self, rest: str) -> None:
        print(f"FROM {rest}: replaced by {shutil.which('python', path=self.environment['PATH'])}")

    def _arg(self, rest: str) -> None:
        name, _, default = rest.partition("=")
        value = self.build_args.get(name, default)
        # An empty build argument means: leave it unset.
        if value:
            self.environment[name] = value

    def _env(self, rest: str) -> None:
        name, _, value = rest.partition("=")
        self.environment[name] = value

    def _copy(self, rest: str) -> None:
        *sources, target = rest.split()
        to = self._below_root(target)
        to.mkdir(parents=True, exist_ok=True)
        for source in map(SOURCE.joinpath, sources):
            if source.is_dir():
                ignored = shutil.ignore_patterns("__pycache__")
                shutil.copytree(source, to, dirs_exist_ok=True, ignore=ignored)
            else:
                shutil.copy(source, to)

    def _workdir(self, rest: str) -> None:
        self.folder = self._below_root(rest)
        self.folder.mkdir(parents=True, exist_ok=True)

    def _run(self, rest: str) -> None:
        for folder in sorted(self.folders, key=len, reverse=True):
            rest = re.sub(rf"(?<![\w/]){re.escape(folder)}(?![\w])", str(self._below_root(folder)), rest)
        print(f"RUN {rest}", flush=True)
        subprocess.run(["sh", "-ec", rest], cwd=self.folder, env=self.environment, check=True)

    def _entrypoint(self, rest: str) -> None:
        self.entry_point = json.loads(rest)

    def _cmd(self, rest: str) -> None:
        json.loads(rest)

    def _below_root(self, path: str) -> Path:
        self.folders.add("/" + path.strip("/"))
        return self.root / path.strip("/")

    def start(self, arguments: list[str]) -> int:
        """Run the entry point and return its exit code."""
        command = [*self.entry_point, *arguments]
        print("+", *command, flush=True)
        return subprocess.run(command, cwd=self.folder, env=self.environment, check=False).returncode


def main() -> int:
    """Run all steps; return the entry point's exit code."""
    parser = argparse.ArgumentParser(description="Run the steps of the Dockerfile without docker.")
    parser.add_argument("--bin", type=Path, required=True, help="Folder with the python to install into.")
    parser.add_argument(
        "--build-arg", action="append", default=[], metavar="NAME=VALUE", help="As in docker."
    )
    parser.add_argument("arguments", nargs="*", help="Arguments of the entry point.")
    options = parser.parse_args()
    build_args = dict(argument.split("=", 1) for argument in options.build_arg)
    with tempfile.TemporaryDirectory() as folder:
        image = Image(Path(folder), options.bin.absolute(), build_args)
        for name, rest in read_instructions((SOURCE / "Dockerfile").read_text(encoding="utf-8")):
            image.run(name, rest)
        return image.start(options.arguments)


if __name__ == "__main__":
    raise SystemExit(main())
