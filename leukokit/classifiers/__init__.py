"""Classifiers: a label for every leukocyte of a cell graph."""
