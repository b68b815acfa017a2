"""``python -m leukokit``."""

from leukokit.cli import main

main()
