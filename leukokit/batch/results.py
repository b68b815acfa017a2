"""Results of images one by one, where plugins of others run in a process that can be ended."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from leukokit._devices import resolve_device
from leukokit.batch.isolation import has_foreign_plugins, plugin_files
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.messages import WorkerSettings
from leukokit.batch.worker_process import start_workers
from leukokit.config import PipelineConfig
from leukokit.engines.cpu import cores
from leukokit.errors import LeukokitError, PluginError, WeightsError
from leukokit.images.inputs import FoundImage
from leukokit.pipeline import Pipeline
from leukokit.results import SmearResult

Outcomes = Iterator[SmearResult | LeukokitError]


@contextmanager
def open_results(
    config: PipelineConfig, device: str = "auto"
) -> Iterator[Callable[[Sequence[FoundImage]], Outcomes]]:
    """Yield a function that processes images in order; errors stand in the place of failed ones.

    A pipeline of leukokit's own plugins runs in this process. With a plugin of others it runs in a worker
    process: whatever the plugin does, it costs the image that it does it to.

    Args:
        config: the pipeline's.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        PluginError: a plugin cannot be started.
        ConfigError: no such device, or a wrong parameter.
    """
    if not has_foreign_plugins(config, ()):
        pipeline = Pipeline.from_config(config, device)
        yield lambda images: _results_here(pipeline, images)
        return
    memory = MemoryBudget.of_machine(1).total
    settings = WorkerSettings(
        *(config, resolve_device(device), plugin_files(), (), Path.cwd(), 1, cores(), memory),
        returns_results=True,
    )
    with start_workers([settings]) as (process,):
        process.wait()

        def results_of(images: Sequence[FoundImage]) -> Outcomes:
            for record in process.records(_InTurn(images)):
                yield record.result or PluginError(record.error)

        yield results_of


class _InTurn:
    """Images in their order; see ``ImageSource``."""

    def __init__(self, images: Sequence[FoundImage]) -> None:
        self._images = iter(images)

    def next(self, wait: bool) -> FoundImage | None:  # there is always one, or the end
        """Return the next image; None where there is none."""
        return next(self._images, None)


def _results_here(pipeline: Pipeline, images: Sequence[FoundImage]) -> Outcomes:
    for image in images:
        try:
            yield pipeline.run(image.path, image.stem_path)
        except WeightsError:
            # No image's fault: the next would meet it, too.
            raise
        except LeukokitError as error:
            # What is wrong with one image must not cost the others.
            yield error
