"""Reviewing a batch: people name what the classifier left open, and correct what it got wrong."""
