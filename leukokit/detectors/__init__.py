"""Detectors: plugins that find the cells of fields of view."""
