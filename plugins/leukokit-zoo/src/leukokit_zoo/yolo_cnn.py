"""Detector ``yolo-cnn``: YOLO localises, a CNN judges; after Abas et al. (2022).

Source: doi:10.11591/ijeecs.v25.i1.pp200-213. There the CNN names one of three classes of leukocyte; naming is
the work of a classifier plugin here, so that the CNN says whether a box holds a leukocyte at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from leukokit import Cells, Smear, weights
from leukokit.crops import cut_crops
from leukokit.detectors import YoloDetector, YoloParams
from leukokit.taxonomy import LEUKOCYTE
from leukokit.weights import ClassifierCard, load_weights
from pydantic import Field

from leukokit_zoo.weights import FOLDER

CROPS_AT_ONCE = 64


class YoloCnnParams(YoloParams):
    """Parameters of the detector ``yolo-cnn``."""

    judge: Path = Field(FOLDER / "yolo-cnn.safetensors", description="weight file of the CNN")
    candidates: float = Field(
        0.15, ge=0, le=1, description="lowest score by YOLO of a leukocyte that the CNN is asked about"
    )


class YoloCnnDetector(YoloDetector[YoloCnnParams]):
    """The built-in ``yolo``, whose leukocytes are scored again by a CNN on their crops.

    A leukocyte's score becomes the geometric mean of YOLO's and the CNN's; what is then below ``confidence``
    is left out. Erythrocytes and platelets are YOLO's.
    """

    name = "yolo-cnn"
    version = "0.1"
    summary = "YOLO's leukocytes, judged by a CNN (after Abas et al. 2022)"

    @property
    def confidence(self) -> float:
        """Lowest score by YOLO that is kept for the CNN to judge."""
        return min(self.params.candidates, super().confidence)

    @cached_property
    def card(self) -> ClassifierCard:
        """The card of the CNN's weights."""
        return weights.read_card(weights.find(self.params.judge), ClassifierCard)

    @cached_property
    def judge(self) -> Any:
        """The CNN in evaluation mode; loaded on first use."""
        from leukokit_zoo.wbcsnet import WbcsNet

        network = WbcsNet(len(self.card.classes))
        load_weights(network, weights.find(self.params.judge))
        return network.to(self.device).eval()

    def detect(self, smears: Sequence[Smear]) -> list[Cells]:
        """Cells of each smear; see ``Detector.detect``."""
        found = super().detect(smears)
        return [self._judged(smear, cells) for smear, cells in zip(smears, found, strict=True)]

    @property
    def weight_files(self) -> tuple[Path, ...]:
        """The files of both networks."""
        return (*super().weight_files, weights.find(self.params.judge))

    def provenance(self) -> dict[str, Any]:
        """As the built-in detector's, with the CNN by its name."""
        stored = super().provenance()
        stored["params"] |= {"confidence": super().confidence, "judge": self.card.name}
        return stored

    def _judged(self, smear: Smear, cells: Cells) -> Cells:
        leukocytes = np.flatnonzero(cells.kinds == LEUKOCYTE)
        scores = cells.scores.copy()
        if len(leukocytes):
            scores[leukocytes] = np.sqrt(scores[leukocytes] * self._chances(smear, cells.boxes[leukocytes]))
        judged = Cells(cells.boxes, cells.kinds, scores, cells.notes)
        return judged[scores >= super().confidence]

    def _chances(self, smear: Smear, boxes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """The CNN's probability that each of (N, 4) boxes holds a leukocyte, (N,) float32 in 0..1."""
        import torch

        card = self.card
        sides = card.cover * np.maximum((boxes[:, 2:] - boxes[:, :2]).max(axis=1), 1.0)
        crops = torch.from_numpy(cut_crops(smear, boxes, sides, card.crop_px)).permute(0, 3, 1, 2)
        with torch.inference_mode():
            logits = [
                self.judge(part.to(self.device).float() / 255) for part in torch.split(crops, CROPS_AT_ONCE)
            ]
            chances = torch.softmax(torch.cat(logits) / card.temperature, dim=1)
        found: npt.NDArray[np.float32] = chances[:, card.classes.index("leukocyte")].cpu().numpy()
        return found
