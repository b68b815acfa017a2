"""How an image file becomes RGB uint8 (H, W, 3) pixels; ``leukokit.smear`` is the way in.

``inputs`` finds the files and ``places`` names their results. ``decoding`` recognises the formats by
content; ``jpeg``, ``png``, ``raster`` (WebP, BMP) and ``tiff`` decode them; ``depth`` and ``scale`` turn
decoded samples of any depth into 8 bits; ``metadata`` applies the orientation; ``checks`` holds what every
format is checked for. ``pixels`` resizes; ``standardize`` brings light and stain to one reference.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from leukokit._lazy import lazy_names

if TYPE_CHECKING:
    from leukokit.images.inputs import FoundImage as FoundImage
    from leukokit.images.inputs import FoundImages as FoundImages
    from leukokit.images.inputs import find_images as find_images
    from leukokit.images.pixels import RGBImage as RGBImage
    from leukokit.images.pixels import scale_image as scale_image
    from leukokit.images.standardize import WHITE as WHITE
    from leukokit.images.standardize import Standardization as Standardization
    from leukokit.images.standardize import estimate_standardization as estimate_standardization
    from leukokit.images.standardize import standardize as standardize

_MODULES = {
    "FoundImage": "inputs",
    "FoundImages": "inputs",
    "RGBImage": "pixels",
    "Standardization": "standardize",
    "WHITE": "standardize",
    "estimate_standardization": "standardize",
    "find_images": "inputs",
    "scale_image": "pixels",
    "standardize": "standardize",
}
__all__ = list(_MODULES)
__getattr__, __dir__ = lazy_names(__name__, _MODULES)
