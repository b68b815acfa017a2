"""``leukokit doctor``: is everything here that a run needs?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import typer

from leukokit.cli.consoles import make_console

Finding = tuple[str, str, str]
"""What was looked at, what was found, and the problem with it and its remedy; empty if there is none."""
FOR_ALL: Final = ("onnxruntime", "opencv-python-headless")
"""Packages without which nothing runs."""
FOR_TORCH: Final = ("torch", "torchvision", "ultralytics-opencv-headless")
"""Packages that an inference on a CPU does without."""


def doctor() -> None:
    """Show versions, devices, plugins and weights, and what to do about each problem."""
    from rich.text import Text

    from leukokit._text import printable

    console = make_console()
    has_problems = False
    for name, value, problem in _findings():
        has_problems = has_problems or bool(problem)
        mark = Text("problem", "red") if problem else Text("ok     ", "green")
        console.print(Text.assemble(mark, f" {printable(name):<28} {printable(value)}"), soft_wrap=True)
        if problem:
            console.print(Text(f"        {printable(problem)}"), soft_wrap=True)
    if has_problems:
        raise typer.Exit(1)


def _findings() -> Iterator[Finding]:
    import platform

    from leukokit import __version__

    yield "leukokit", __version__, ""
    yield "python", f"{platform.python_version()} on {platform.system()} {platform.machine()}", ""
    yield from _packages()
    devices = _devices()
    yield from devices
    yield from _engines(["cpu", *(name.removeprefix("device ") for name, _, _ in devices if ":" in name)])
    yield from _plugin_findings()
    yield from _weights()


def _packages() -> Iterator[Finding]:
    from importlib.metadata import PackageNotFoundError, version

    for package in (*FOR_ALL, *FOR_TORCH):
        try:
            yield package, version(package), ""
        except PackageNotFoundError:
            if package in FOR_ALL:
                yield package, "not installed", f"install it: python -m pip install {package}"
            else:
                yield package, "not installed; needed to train, on CUDA, and for weights without a graph", ""


def _engines(devices: Sequence[str]) -> Iterator[Finding]:
    from leukokit.engines.choose import list_engines
    from leukokit.registry import engines

    for engine in list_engines(map(engines.get, engines.names()), devices):
        use = f"used on {', '.join(engine.devices)}" if engine.devices else engine.problem
        yield f"engine {engine.name}", f"{engine.version or 'no library'}, {use}", ""


def _plugin_findings() -> Iterator[Finding]:
    from leukokit.errors import LeukokitError
    from leukokit.registry import ALL

    for registry in ALL:
        for row in registry.rows():
            name, problem = f"{row.kind} {row.name}", row.error
            if row.disabled:
                yield name, f"{row.origin}, disabled", ""
                continue
            version = "?"
            if not problem:
                try:
                    version = registry.get(row.name).version
                except LeukokitError as error:
                    problem = str(error)
            yield name, f"{version} ({row.origin})", problem


def _weights() -> Iterator[Finding]:
    from leukokit import weights
    from leukokit.errors import LeukokitError

    if not weights.shipped():
        yield "weights", "none", "the package is incomplete; install leukokit again"
    for path in weights.shipped():
        try:
            card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            yield f"weights {path.stem}", f"sha256 {card.sha256[:16]}..., {size}", ""
        except LeukokitError as error:
            yield f"weights {path.stem}", "unusable", str(error)


def _devices() -> list[Finding]:
    import importlib.util

    from leukokit.engines.cpu import cores

    rows = [("device cpu", f"{cores()} cores", "")]
    if importlib.util.find_spec("torch") is None:
        return rows
    try:
        import torch
    except Exception as error:
        # A broken driver or a missing library makes the import itself fail, in many ways.
        return [*rows, ("device cuda", "none", f"torch does not import ({error}); install it again")]
    if torch.cuda.is_available():
        rows += [
            (f"device cuda:{number}", torch.cuda.get_device_name(number), "")
            for number in range(torch.cuda.device_count())
        ]
    else:
        rows.append(("device cuda", "none found; the CPU is used", ""))
    return rows
