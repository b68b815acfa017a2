"""Crops of cells: how they are cut, and what their stain and size say."""
