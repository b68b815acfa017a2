"""Write the ONNX graphs of the shipped weights anew, beside them, and their hashes into the cards.

    python tools/write_graphs.py

Training writes the graph of new weights by itself. This command is for a change of how graphs are made.
"""

from __future__ import annotations

from leukokit import weights
from leukokit.classifiers.altarawneh import AltarawnehClassifier
from leukokit.classifiers.cnn import CnnClassifier
from leukokit.classifiers.networks.modules import write_context_graph, write_crop_graph
from leukokit.detectors.yolo.torch_network import write_detector_graph


def main() -> None:
    """Write all of them."""
    write_detector_graph(weights.find("smear-yolo11n"))
    write_crop_graph(CnnClassifier, weights.find("leukocyte-cnn"))
    write_crop_graph(AltarawnehClassifier, weights.find("leukocyte-altarawneh"))
    write_context_graph(weights.find("leukocyte-hybrid"))


if __name__ == "__main__":
    main()
