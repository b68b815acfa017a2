"""leukokit: find, count and save the blood cells of stained smear images. For research use only."""

__version__ = "0.1.0"
