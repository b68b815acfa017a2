"""Engines: the libraries that run the networks of detectors and classifiers."""
