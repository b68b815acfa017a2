"""Shards: the images of a batch divided among machines, each image in one shard."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path

from leukokit.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Shard:
    """Shard ``number`` of ``of``, counted from 1."""

    number: int
    of: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Return the shard that is written ``2/8``.

        Raises:
            ConfigError: not a shard.
        """
        found = re.fullmatch(r"(\d{1,6})/(\d{1,6})", text)
        shard = cls(int(found[1]), int(found[2])) if found else cls(0, 0)
        if not 1 <= shard.number <= shard.of:
            raise ConfigError(f"--shard {text}: must be K/N with K from 1 to N, e.g. 2/8")
        return shard

    def __str__(self) -> str:
        return f"{self.number}/{self.of}"

    def contains(self, name: Path) -> bool:
        """Return whether an image is in the shard.

        The name alone decides, not the image's place in the folder: shards stay disjoint and complete while
        images are added.
        """
        digest = hashlib.sha256(os.fsencode(name.as_posix())).digest()
        return int.from_bytes(digest[:8], "big") % self.of == self.number - 1
