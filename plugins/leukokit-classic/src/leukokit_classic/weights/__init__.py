"""The trained weights of this package, each with its card."""

from pathlib import Path

FOLDER = Path(__file__).parent
