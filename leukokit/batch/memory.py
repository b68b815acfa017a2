"""A budget for the memory of decoded images: a small file may hold a large image."""

from __future__ import annotations

from threading import Condition
from typing import Final

from leukokit.batch.resources import machine_memory

SHARE: Final = 4
"""Part of the machine's memory that images in work may take: one fourth."""


class MemoryBudget:
    """Admits images while their memory fits; one that never fits alone is admitted alone.

    Shared by the pipelines of a process. Each takes memory for an image before it reads it, and returns it
    when the image is recorded.

    Args:
        total: bytes.
    """

    def __init__(self, total: int) -> None:
        self.total = total
        self._used, self._waiting, self._changed = 0, 0, Condition()

    @classmethod
    def of_machine(cls, processes: int) -> MemoryBudget:
        """Return the budget of one of so many processes."""
        return cls(machine_memory() // SHARE // max(processes, 1))

    def take(self, amount: int, wait: bool) -> bool:
        """Return whether the memory is taken; with ``wait``, wait until it is.

        Where somebody waits, nobody is admitted that does not: a large image would wait for ever.
        """
        with self._changed:
            if not wait and (self._waiting or not self._fits(amount)):
                return False
            self._waiting += 1
            try:
                while not self._fits(amount):
                    self._changed.wait()
            finally:
                self._waiting -= 1
            self._used += amount
            return True

    def give_back(self, amount: int) -> None:
        """Return memory that was taken."""
        with self._changed:
            self._used -= amount
            self._changed.notify_all()

    def _fits(self, amount: int) -> bool:
        return not self._used or self._used + amount <= self.total
