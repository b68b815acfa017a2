"""``python -m leukokit``."""

from leukokit.cli import main

# A process of a batch imports this module, too, and is not to run the command again.
if __name__ == "__main__":
    main()
