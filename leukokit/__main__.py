"""``python -m leukokit``."""

from leukokit.cli import program

program()
