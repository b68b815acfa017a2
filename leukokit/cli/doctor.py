"""``leukokit doctor``: is everything here that a run needs?"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import typer

FOR_ALL: Final = ("onnxruntime", "opencv-python-headless")
"""Packages without which nothing runs."""
FOR_TORCH: Final = ("torch", "torchvision", "ultralytics-opencv-headless")
"""Packages that an inference on a CPU does without."""


def doctor() -> None:
    """Show versions, devices, plugins and weights, and what to do about each problem."""
    import importlib.metadata
    import platform

    from rich.console import Console
    from rich.markup import escape

    from leukokit import __version__
    from leukokit.engines.choose import list_engines
    from leukokit.registry import engines

    console = Console(highlight=False)
    problems = 0

    def line(name: str, value: str, problem: str = "") -> None:
        nonlocal problems
        problems += bool(problem)
        mark = "[red]problem[/red]" if problem else "[green]ok[/green]     "
        console.print(f"{mark} {escape(name):<28} {escape(value)}", soft_wrap=True)
        if problem:
            console.print(f"        {escape(problem)}", soft_wrap=True)

    line("leukokit", __version__)
    line("python", f"{platform.python_version()} on {platform.system()} {platform.machine()}")
    for package in (*FOR_ALL, *FOR_TORCH):
        try:
            line(package, importlib.metadata.version(package))
        except importlib.metadata.PackageNotFoundError:
            if package in FOR_ALL:
                line(package, "not installed", f"install it: python -m pip install {package}")
            else:
                line(package, "not installed; needed to train, on CUDA, and for weights without a graph")
    for name, value, problem in _devices():
        line(name, value, problem)
    devices = ("cpu", *(name.removeprefix("device ") for name, _, _ in _devices() if ":" in name))
    for engine in list_engines(map(engines.get, engines.names()), devices):
        use = f"used on {', '.join(engine.devices)}" if engine.devices else engine.problem
        line(f"engine {engine.name}", f"{engine.version or 'no library'}, {use}")
    for name, value, problem in (*_plugin_rows(), *_weight_rows()):
        line(name, value, problem)
    if problems:
        raise typer.Exit(1)


def _plugin_rows() -> Iterator[tuple[str, str, str]]:
    from leukokit.errors import LeukokitError
    from leukokit.registry import ALL

    for registry in ALL:
        for row in registry.rows():
            if row.disabled:
                yield f"{row.kind} {row.name}", f"{row.version} ({row.package}), disabled", ""
                continue
            problem = row.error
            if not problem:
                try:
                    registry.get(row.name)
                except LeukokitError as error:
                    problem = str(error)
            yield f"{row.kind} {row.name}", f"{row.version} ({row.package})", problem


def _weight_rows() -> Iterator[tuple[str, str, str]]:
    from leukokit import weights
    from leukokit.errors import LeukokitError

    if not weights.shipped():
        yield "weights", "none", "the package is incomplete; install leukokit again"
    for path in weights.shipped():
        try:
            card = weights.read_card(path, weights.card_model(path.with_suffix(".json")))
        except LeukokitError as error:
            yield f"weights {path.stem}", "unusable", str(error)
        else:
            size = f"{path.stat().st_size / 1e6:.1f} MB"
            yield f"weights {path.stem}", f"sha256 {card.sha256[:16]}..., {size}", ""


def _devices() -> list[tuple[str, str, str]]:
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
