"""How an image file becomes RGB uint8 (H, W, 3) pixels; ``leukokit.smear`` is the way in.

``inputs`` finds the files and ``places`` names their results. ``decoding`` recognises the formats by
content; ``jpeg``, ``png``, ``raster`` (WebP, BMP) and ``tiff`` decode them; ``depth`` and ``scale`` turn
decoded samples of any depth into 8 bits; ``metadata`` applies the orientation; ``checks`` holds what every
format is checked for. ``pixels`` resizes; ``standardize`` brings light and stain to one reference.
"""
