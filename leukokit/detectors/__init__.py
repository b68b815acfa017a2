"""Detectors: plugins that find the cells of a smear."""
