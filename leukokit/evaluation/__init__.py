"""Measuring detectors on annotated fields."""
