"""How the bytes of an image file become RGB uint8 (H, W, 3) pixels; ``leukokit.smear`` is the way in.

``decode`` tells the formats apart by content; ``raster`` decodes JPEG, PNG, BMP and WebP, ``tiff`` TIFF;
``depth`` turns decoded samples of any depth into 8 bits; ``metadata`` applies the orientation; ``checks``
holds what every format is checked for.
"""
