"""Smears drawn by code, with their ground truth."""
