"""The built-in detector: a YOLO network that sees each field at one size of erythrocyte, tiled if need be."""
