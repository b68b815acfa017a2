"""Memory of decoded images: small files that hold large images are read one after another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from batches import folder_of, with_scripted_plugins
from hypothesis import given
from hypothesis import strategies as st

from leukokit.batch.manifest import Manifest
from leukokit.batch.memory import MemoryBudget
from leukokit.batch.scheduler import Scheduler
from leukokit.config import PipelineConfig
from leukokit.images.inputs import find_images
from leukokit.pipeline import Pipeline
from leukokit.smear import Smear


@pytest.fixture(scope="module", autouse=True)
def plugins() -> Iterator[None]:
    with with_scripted_plugins():
        yield


@given(st.lists(st.integers(0, 30), max_size=12))
def test_what_fits_is_admitted_and_one_that_never_fits_alone(amounts: list[int]) -> None:
    budget, taken = MemoryBudget(20), list[int]()
    for amount in amounts:
        fits = not sum(taken) or sum(taken) + amount <= 20
        assert budget.take(amount, wait=False) == fits
        if fits:
            taken.append(amount)
    for amount in taken:
        budget.give_back(amount)
    assert budget.take(100, wait=False)


def test_who_waits_comes_before_who_does_not() -> None:
    budget, admitted = MemoryBudget(10), threading.Event()
    assert budget.take(8, wait=False)

    def wait() -> None:
        budget.take(50, wait=True)
        admitted.set()

    waiting = threading.Thread(target=wait)
    waiting.start()
    while not budget._waiting:
        time.sleep(0.001)
    assert not budget.take(1, wait=False) and not admitted.is_set()
    budget.give_back(8)
    assert admitted.wait(20)
    waiting.join(20)


@pytest.mark.parametrize("pipelines", [1, 3])
def test_a_batch_keeps_to_its_budget(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pipelines: int) -> None:
    found = find_images([folder_of(tmp_path / "in", 24)]).images
    chosen = {"detector": "scripted", "classifier": "turns", "standardize": False}
    made = [Pipeline.from_config(PipelineConfig.model_validate(chosen), "cpu") for _ in range(pipelines)]
    read, lock, alive, most = Pipeline._read, threading.Lock(), 0, 0

    def counting(self: Pipeline, path: Path) -> Smear:
        nonlocal alive, most
        with lock:
            alive += 1
            most = max(most, alive)
        time.sleep(0.002)
        return read(self, path)

    def recorded(_: object) -> None:
        nonlocal alive
        with lock:
            alive -= 1

    monkeypatch.setattr(Pipeline, "_read", counting)
    # Two images fit; a third one does not.
    monkeypatch.setattr(Pipeline, "memory_of", lambda self, path: 40)
    with Manifest(tmp_path / "out", {}) as manifest:
        manifest.plan(enumerate(found))
        Scheduler(made, manifest, workers=8, on_record=recorded, budget=MemoryBudget(100)).run(found)
        assert all(manifest.is_done(image) for image in found)
    # An image is given back a moment after it is recorded.
    assert alive == 0 and 1 <= most <= 2


def test_memory_is_known_from_the_header(tmp_path: Path) -> None:
    (image,) = find_images([folder_of(tmp_path / "in", 1)]).images
    assert Pipeline(device="cpu").memory_of(image.path) >= 6 * 50 * 40
