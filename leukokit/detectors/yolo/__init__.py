"""The built-in detector: a YOLO network on tiles at the size that the erythrocytes ask for."""
